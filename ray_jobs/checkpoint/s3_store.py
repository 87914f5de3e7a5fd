"""A store in an S3 bucket, at Amazon or any endpoint that honours conditional writes.

Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, …) or from
boto3's own files; they are never part of a store's URL, so they cannot reach a manifest.
"""

import functools
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ray_jobs.checkpoint.store import Entry, Store, StoreError, check_path

# boto3 splits larger uploads into parts of this size; a single PUT carries up to 5 GB.
PART_BYTES = 64 << 20
MAX_CREATE_TRIES = 8
_client_lock = threading.Lock()


@functools.lru_cache(maxsize=8)
def _client_of_process(pid: int, endpoint: str | None, access_key: str | None, region: str | None) -> Any:
    # Keyed by pid: a forked child must not share its parent's connections. A new client costs 95 ms.
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            retries={"mode": "standard", "max_attempts": 8},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            signature_version="s3v4",
            # Path style works everywhere that is not Amazon, and Amazon takes its own bucket names either way.
            s3={"addressing_style": "path"} if endpoint else {},
        ),
    )


def client() -> Any:
    with _client_lock:
        env = os.environ
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
        return _client_of_process(os.getpid(), endpoint, env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_REGION"))


class S3Store(Store):
    concurrency = 16

    def __init__(self, bucket: str, prefix: str):
        self.bucket, self.prefix = bucket, prefix
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{check_path(path)}" if self.prefix else check_path(path)

    def get(self, path: str) -> bytes | None:
        try:
            return self._call(lambda: client().get_object(Bucket=self.bucket, Key=self._key(path))["Body"].read())
        except FileNotFoundError:
            return None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        span = f"bytes={start}-{start + length - 1}"
        return self._call(
            lambda: client().get_object(Bucket=self.bucket, Key=self._key(path), Range=span)["Body"].read()
        )

    def put(self, path: str, data: bytes | memoryview) -> None:
        if len(data) > PART_BYTES:
            import io

            config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
            self._call(lambda: client().upload_fileobj(io.BytesIO(data), self.bucket, self._key(path), Config=config))
        else:
            self._call(lambda: client().put_object(Bucket=self.bucket, Key=self._key(path), Body=bytes(data)))

    def put_file(self, path: str, local: Path) -> None:
        config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
        self._call(lambda: client().upload_file(str(local), self.bucket, self._key(path), Config=config))

    def create(self, path: str, data: bytes) -> bool:
        for attempt in range(MAX_CREATE_TRIES):
            try:
                client().put_object(Bucket=self.bucket, Key=self._key(path), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == 412:
                    # boto retries a lost answer by itself and then reports 412: our own bytes mean that we won.
                    stands = self.get(path)
                    if stands is not None:
                        return stands == data
                elif status == 501:
                    raise StoreError(
                        f"{self.url} does not support conditional writes (501): use a server that honours "
                        "If-None-Match (Amazon S3, SeaweedFS from 4.17, …); `headrace doctor` tests it"
                    ) from error
                elif status != 409 and status < 500:
                    raise self._explain(error) from error
                last: Exception = error
            except BotoCoreError as error:
                last = error
            time.sleep(random.uniform(0, min(5.0, 0.05 * 2**attempt)))
        raise self._explain(last) from last

    def size(self, path: str) -> int | None:
        try:
            return self._call(lambda: client().head_object(Bucket=self.bucket, Key=self._key(path))["ContentLength"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[Entry]:
        assert prefix == "" or prefix.endswith("/"), prefix
        skip = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages(Prefix=self._full_prefix(prefix)):
            for item in page.get("Contents", []):
                yield Entry(item["Key"][skip:], item["Size"], item["LastModified"].timestamp())

    def folders(self, prefix: str) -> Sequence[str]:
        full = self._full_prefix(prefix)
        pages = self._pages(Prefix=full, Delimiter="/")
        return sorted(
            item["Prefix"][len(full) :].rstrip("/") for page in pages for item in page.get("CommonPrefixes", [])
        )

    def _full_prefix(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def _pages(self, **arguments: str) -> Iterator[dict]:
        token: dict[str, str] = {}
        while True:
            page = self._call(lambda: client().list_objects_v2(Bucket=self.bucket, **arguments, **token))  # noqa: B023
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, paths: Iterable[str]) -> None:
        batch: list[dict[str, str]] = []
        for path in paths:
            batch.append({"Key": self._key(path)})
            if len(batch) == 1000:  # the API's limit
                self._delete_batch(batch)
                batch = []
        if batch:
            self._delete_batch(batch)

    def _delete_batch(self, batch: "list[dict[str, str]]") -> None:
        answer = self._call(
            lambda: client().delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
        )
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise StoreError(f"{self.url}: cannot delete {first['Key']}: {first.get('Message', first.get('Code'))}")

    def url_of(self, path: str) -> str:
        return f"s3://{self.bucket}/{self._key(path)}"

    def _call(self, request: Any) -> Any:
        # boto3 retries what the service answers; a body that breaks off half-way is ours to ask for again.
        for attempt in range(MAX_CREATE_TRIES):
            try:
                return request()
            except ClientError as error:
                raise self._explain(error) from error
            except BotoCoreError as error:
                last = error
                if attempt + 1 < MAX_CREATE_TRIES and type(error).__name__ in _TRANSIENT:
                    time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
                    continue
                break
        raise self._explain(last) from last

    def _explain(self, error: Exception) -> OSError:
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"NoSuchKey", "404"}:
                return FileNotFoundError(f"{self.url}: no such object")
            advice = {
                "NoSuchBucket": f"there is no bucket {self.bucket!r}: create it, or name another with --store",
                "InvalidAccessKeyId": "the access key is unknown: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                "SignatureDoesNotMatch": "the secret key is wrong: set AWS_SECRET_ACCESS_KEY",
                "AccessDenied": f"access denied: allow Get, Put, Delete and List on bucket {self.bucket!r}",
                "403": f"access denied: allow Get, Put, Delete and List on bucket {self.bucket!r}",
            }.get(code, f"{error}")
            return StoreError(f"{self.url}: {advice}")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"
        if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
            return StoreError(f"{self.url}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        return StoreError(f"{self.url}: cannot reach {endpoint} ({error}): check AWS_ENDPOINT_URL and the network")


_TRANSIENT = {
    "ReadTimeoutError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "IncompleteReadError",
    "ResponseStreamingError",
    "HTTPClientError",
}
