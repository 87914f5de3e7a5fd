"""Pinned files as streams of bytes: local ones, HTTP and S3, each checked against what was pinned."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from configs.files import PinnedFile
from ray_jobs.files.resuming import Changed, ResumingReader

if TYPE_CHECKING:
    from ray_jobs.files.http import HttpClient

S3_CHUNK_BYTES = 1 << 20


class Stream(Protocol):
    """What is asked of a file's bytes."""

    def read(self, size: int = -1, /) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...


class Openable(Protocol):
    """A file that can be read from any offset, any number of times."""

    def open(self, start: int = 0) -> Stream: ...


class LocalFile:
    """A file of this machine."""

    def __init__(self, path: Path):
        self._path = path

    def open(self, start: int = 0) -> Stream:
        stream = self._path.open("rb")
        stream.seek(start)
        return stream


class CheckedFile:
    """A pinned file, wherever it lies. What it holds is checked whenever it is opened.

    Raises:
        Changed: size, etag or checksum are not those that were pinned; also while reading.
    """

    def __init__(self, file: PinnedFile, allowed_hosts: tuple[str, ...] = ()):
        self._file, self._allowed_hosts = file, allowed_hosts
        if is_local(file.url):
            _check_local(file)

    def open(self, start: int = 0) -> Stream:
        if is_local(self._file.url):
            return LocalFile(local_path(self._file.url)).open(start)
        if self._file.url.startswith("s3://"):
            return open_s3(self._file, start)
        from ray_jobs.files.http import Resource

        resource = Resource(self._file.url, self._file.size, self._file.etag)
        return http_client(self._allowed_hosts).open(resource, start)


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path of a file URL, or the path itself."""
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url)


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_local(file: PinnedFile) -> None:
    path = local_path(file.url)
    if not path.is_file():
        raise Changed(file.url, "it is gone, or not visible from this machine")
    if path.stat().st_size != file.size:
        raise Changed(file.url, f"it has {path.stat().st_size} bytes, pinned were {file.size}")
    if file.sha256 is not None and sha256_of(path) != file.sha256:
        raise Changed(file.url, "its sha256 is another one")


@lru_cache(maxsize=4)
def http_client(allowed_hosts: tuple[str, ...]) -> "HttpClient":
    """One client a process, whose waiting its files share."""
    from ray_jobs.files.http import HttpClient

    return HttpClient(allowed_hosts)


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """Endpoint, region and credentials come from the environment, as boto3 finds them. A new session costs 95 ms."""
    import boto3
    from botocore.config import Config

    return boto3.Session().client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 8}))


def split_s3(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def describe_s3(url: str) -> PinnedFile:
    """Size and etag of an object."""
    bucket, key = split_s3(url)
    head = s3_call(url, "head_object", Bucket=bucket, Key=key)
    return PinnedFile(url=url, size=head["ContentLength"], etag=head["ETag"])


def open_s3(file: PinnedFile, start: int = 0) -> ResumingReader:
    """The object from `start`; S3 itself refuses (412) where its etag is another one."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    bucket, key = split_s3(file.url)
    condition = {} if file.etag is None else {"IfMatch": file.etag}

    def body(position: int) -> Iterator[bytes]:
        if position >= file.size:
            return
        answer = s3_call(file.url, "get_object", Bucket=bucket, Key=key, Range=f"bytes={position}-", **condition)
        with contextlib.closing(answer["Body"]) as stream:
            yield from stream.iter_chunks(S3_CHUNK_BYTES)

    return ResumingReader(
        body,
        file.size,
        start,
        lost=(HTTPClientError, IncompleteReadError),
        attempts=8,
        wait=lambda attempt: time.sleep(min(30.0, 0.5 * 2**attempt)),
        name=file.url,
    )


def s3_call(url: str, operation: str, **arguments: Any) -> Any:
    """One S3 request, its failures in words.

    Raises:
        ValueError: no credentials, not allowed, or no such object.
        Changed: the object's etag is not the one that was asked for.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    advice = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any AWS account's will do for s3://commoncrawl), or read "
        "Common Crawl without an account by base_url https://data.commoncrawl.org"
    )
    try:
        return getattr(s3_client(), operation)(**arguments)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ValueError(f"{url} needs AWS credentials: {advice}") from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 412:
            raise Changed(url, "its etag is another one") from error
        if status in {401, 403}:
            raise ValueError(f"{url} may not be read with these credentials (status {status}): {advice}") from error
        if status == 404:
            raise ValueError(f"{url} does not exist: check bucket and key (for Common Crawl its name)") from error
        raise
