"""A store in an S3 bucket, at Amazon or any endpoint that honours conditional writes.

Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, …) or from
boto3's own files; they are never part of a store's URL, so they cannot reach a manifest.
"""

import contextlib
import functools
import io
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto_errors
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ray_jobs.checkpoint.store import Entry, Store, StoreError, check_path

T = TypeVar("T")

# boto3 splits larger uploads into parts of this size; a single PUT carries up to 5 GB.
PART_BYTES = 64 << 20
TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
PART_TRIES = 5
DELETE_KEYS = 1000  # the API's limit for one request
# An endpoint that has answered this process before is waited for (a server restarts, a network flaps); one that never
# did is more likely a wrong address.
OUTAGE_SECONDS = 60.0
FIRST_CONTACT_SECONDS = 4.0
CONNECT_SECONDS = 4
READ_SECONDS = 60
MAX_PAUSE_SECONDS = 4.0

_client_lock = threading.Lock()
_answered: set[str] = set()
"""Endpoints that have answered this process."""

_VARIABLES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
)
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "OperationAborted"}
_TRANSIENT = (
    boto_errors.ConnectionError,
    boto_errors.HTTPClientError,  # time-outs, closed connections, bodies that break off
    boto_errors.IncompleteReadError,
)


def settings_of_environment() -> tuple[str | None, ...]:
    """What a client is made from, in the order of `_VARIABLES`."""
    return tuple(os.environ.get(name) for name in _VARIABLES)


def new_client(settings: tuple[str | None, ...], max_tries: int = 1) -> Any:
    """A client of its own session: the default session keeps the first credentials it saw. Costs 95 ms."""
    endpoint_s3, endpoint, access_key, secret_key, token, region, default_region, profile = settings
    session = boto3.session.Session(
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=token,
        region_name=region or default_region,
        profile_name=None if access_key else profile,
    )
    return session.client(
        "s3",
        endpoint_url=endpoint_s3 or endpoint,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": max_tries},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=32,
            signature_version="s3v4",
            # Path style works everywhere that is not Amazon, and Amazon takes its own bucket names either way.
            s3={"addressing_style": "path"} if endpoint_s3 or endpoint else {},
        ),
    )


@functools.lru_cache(maxsize=8)
def _client_of_process(pid: int, settings: tuple[str | None, ...], max_tries: int) -> Any:
    # Keyed by pid: a forked child must not share its parent's connections. What the client is kept under is what it is
    # made from: reading the environment again would let a change in between give it another's endpoint.
    return new_client(settings, max_tries)


def client(max_tries: int = 1) -> Any:
    """This process's client. Requests are tried again by `S3Store._call`, which tells a lost answer from a refusal and
    begins with short pauses; only the parts of a large upload are botocore's to try again."""
    with _client_lock:
        return _client_of_process(os.getpid(), settings_of_environment(), max_tries)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"


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
            return self._call(lambda s3: s3.get_object(Bucket=self.bucket, Key=self._key(path))["Body"].read())
        except FileNotFoundError:
            return None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        span = f"bytes={start}-{start + length - 1}"

        def request(s3: Any) -> bytes:
            try:
                return s3.get_object(Bucket=self.bucket, Key=self._key(path), Range=span)["Body"].read()
            except ClientError as error:
                if _status(error) == 416:  # past the end
                    return b""
                raise

        return self._call(request)

    def put(self, path: str, data: bytes | memoryview) -> None:
        if len(data) > PART_BYTES:
            self._upload(path, lambda: io.BytesIO(data))
        else:
            self._call(lambda s3: s3.put_object(Bucket=self.bucket, Key=self._key(path), Body=bytes(data)))

    def put_file(self, path: str, local: Path) -> None:
        self._upload(path, lambda: local.open("rb"))

    def _upload(self, path: str, opened: Callable[[], BinaryIO]) -> None:
        def request(_: Any) -> None:
            with opened() as source:
                client(PART_TRIES).upload_fileobj(source, self.bucket, self._key(path), Config=TRANSFER)

        self._call(request)

    def create(self, path: str, data: bytes) -> bool:
        def request(s3: Any) -> bool | None:
            try:
                s3.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                if _status(error) != 412:
                    raise
            # An answer that was lost is asked for again, and then reads 412: our own bytes mean that we won.
            stands = self.get(path)
            return None if stands is None else stands == data

        while True:
            won = self._call(request)
            if won is not None:  # else what stood was deleted between the two requests
                return won

    def size(self, path: str) -> int | None:
        try:
            return self._call(lambda s3: s3.head_object(Bucket=self.bucket, Key=self._key(path))["ContentLength"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[Entry]:
        assert prefix == "" or prefix.endswith("/"), prefix
        skip = len(self._full_prefix(""))
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
            request = functools.partial(_list_page, self.bucket, {**arguments, **token})
            page = self._call(request)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, paths: Iterable[str]) -> None:
        batch: MutableSequence[dict[str, str]] = []
        for path in paths:
            batch.append({"Key": self._key(path)})
            if len(batch) == DELETE_KEYS:
                self._delete_batch(batch)
                batch = []
        if batch:
            self._delete_batch(batch)

    def _delete_batch(self, batch: Sequence[dict[str, str]]) -> None:
        answer = self._call(lambda s3: s3.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}))
        errors = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if errors:
            first = errors[0]
            raise StoreError(f"{self.url}: cannot delete {first['Key']}: {first.get('Message', first.get('Code'))}")

    def leftovers(self) -> Iterator[Entry]:
        skip = len(self._full_prefix(""))
        markers: dict[str, str] = {}
        while True:
            request = functools.partial(_list_uploads, self.bucket, {"Prefix": self._full_prefix(""), **markers})
            page = self._call(request)
            for upload in page.get("Uploads", []):
                path = f"{upload['Key'][skip:]}?{upload['UploadId']}"
                yield Entry(path, 0, upload["Initiated"].timestamp())
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def discard(self, leftover: Entry) -> None:
        path, _, upload = leftover.path.rpartition("?")
        with contextlib.suppress(FileNotFoundError):
            self._call(lambda s3: s3.abort_multipart_upload(Bucket=self.bucket, Key=self._key(path), UploadId=upload))

    def url_of(self, path: str) -> str:
        return f"s3://{self.bucket}/{self._key(path)}"

    def _call(self, request: Callable[[Any], T]) -> T:
        """Makes the request; what may pass by itself (a lost connection, 409, 429, 5xx) is tried again."""
        began, tries = time.monotonic(), 0
        while True:
            try:
                answer = request(client())
                _answered.add(_endpoint())
                return answer
            except ClientError as error:
                if _status(error) < 500:
                    _answered.add(_endpoint())
                if not _may_pass(error):
                    raise self._explain(error) from error
                last: Exception = error
            except BotoCoreError as error:
                if not isinstance(error, _TRANSIENT):
                    raise self._explain(error) from error
                last = error
            patience = OUTAGE_SECONDS if _endpoint() in _answered else FIRST_CONTACT_SECONDS
            if time.monotonic() - began > patience:
                raise self._explain(last) from last
            time.sleep(random.uniform(0.5, 1) * min(MAX_PAUSE_SECONDS, 0.05 * 2**tries))
            tries += 1

    def _explain(self, error: Exception) -> OSError:
        keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"NoSuchKey", "NoSuchUpload", "404"}:
                return FileNotFoundError(f"{self.url}: no such object")
            denied = f"access denied: allow Get, Put, Delete and List on bucket {self.bucket!r}, and check the keys"
            advice = {
                "NoSuchBucket": f"there is no bucket {self.bucket!r}: create it, or name another with --store",
                "InvalidAccessKeyId": f"the access key is not known there: {keys}",
                "SignatureDoesNotMatch": "the secret key is wrong: set AWS_SECRET_ACCESS_KEY",
                "ExpiredToken": "the session token has expired: get a new one and set AWS_SESSION_TOKEN",
                "RequestTimeTooSkewed": "this machine's clock is wrong: set it (NTP)",
                "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
                "AccessDenied": denied,
                "403": denied,
                "NotImplemented": "the server does not support a request that is needed here: use one that honours "
                "If-None-Match (Amazon S3, SeaweedFS from 4.17, …); `headrace doctor` tests it",
            }.get(code, f"{error}")
            return StoreError(f"{self.url}: {advice}")
        if isinstance(error, boto_errors.NoCredentialsError | boto_errors.PartialCredentialsError):
            return StoreError(f"{self.url}: no credentials: {keys}")
        if isinstance(error, _TRANSIENT):
            return StoreError(
                f"{self.url}: {_endpoint()} cannot be reached ({error}): check AWS_ENDPOINT_URL and the network"
            )
        return StoreError(f"{self.url}: {error}: check the AWS_… variables")


def _list_page(bucket: str, arguments: dict[str, str], s3: Any) -> dict:
    return s3.list_objects_v2(Bucket=bucket, **arguments)


def _list_uploads(bucket: str, arguments: dict[str, str], s3: Any) -> dict:
    return s3.list_multipart_uploads(Bucket=bucket, **arguments)


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _may_pass(error: ClientError) -> bool:
    status = _status(error)
    if status == 501:
        return False
    return status in {409, 429} or status >= 500 or error.response.get("Error", {}).get("Code") in _TRANSIENT_CODES
