"""What files are now: globs written out, sizes and etags or checksums looked up."""

import fnmatch
import glob
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from configs.files import PinnedFile
from ray_jobs.files import streams

Progress = Callable[[int, int], None]
"""Called with (files pinned, files in all)."""

# Requests for size and etag at once. Common Crawl asks for few; a full crawl's 90,000 take about half an hour.
PIN_CONNECTIONS = 8
WILDCARD = re.compile(r"[*?\[]")


def pinned(
    patterns: Iterable[str], allowed_hosts: tuple[str, ...] = (), progress: Progress | None = None
) -> tuple[PinnedFile, ...]:
    """Every file that the URLs and globs name, once, in the order in which they are named.

    Raises:
        ValueError: a file is not there or may not be read; the message says what to do.
        ConnectionError: a server did not answer within the client's patience.
    """
    urls = dict.fromkeys(url for pattern in patterns for url in expand(pattern))
    return describe_all(list(urls), allowed_hosts, progress)


def describe_all(
    urls: Sequence[str], allowed_hosts: tuple[str, ...] = (), progress: Progress | None = None
) -> tuple[PinnedFile, ...]:
    """Each file as it is now, several asked for at once."""
    files = []
    with ThreadPoolExecutor(PIN_CONNECTIONS) as pool:
        for file in pool.map(lambda url: describe(url, allowed_hosts), urls):
            files.append(file)
            if progress is not None:
                progress(len(files), len(urls))
    return tuple(files)


def describe(url: str, allowed_hosts: tuple[str, ...] = ()) -> PinnedFile:
    """The file as it is now: its size, and its etag or (for local files) its sha256."""
    if streams.is_local(url):
        path = streams.local_path(url).expanduser().absolute()
        if not path.is_file():
            raise ValueError(f"{path} is not a file: check the path")
        return PinnedFile(url=path.as_uri(), size=path.stat().st_size, sha256=streams.sha256_of(path))
    if url.startswith("s3://"):
        return streams.describe_s3(url)
    resource = streams.http_client(allowed_hosts).describe(url)
    return PinnedFile(url=url, size=resource.size, etag=resource.etag)


def expand(pattern: str) -> list[str]:
    """The files that a URL or glob names, sorted; a URL without wildcards names itself."""
    if not WILDCARD.search(pattern) or pattern.startswith(("http://", "https://")):
        return [pattern]  # in an HTTP URL ? begins the query
    if pattern.startswith("s3://"):
        found: Iterable[str] = _expand_s3(pattern)
    else:
        local = str(streams.local_path(pattern).expanduser())
        paths = glob.glob(local, recursive=True)  # noqa: PTH207 - absolute patterns
        found = (path for path in paths if Path(path).is_file())
    names = sorted(found)
    if not names:
        raise ValueError(f"no file matches {pattern}: check the path and its wildcards")
    return names


def _expand_s3(pattern: str) -> Iterable[str]:
    bucket, key_pattern = streams.split_s3(pattern)
    prefix = WILDCARD.split(key_pattern, maxsplit=1)[0]
    token: dict[str, str] = {}
    while True:
        page = streams.s3_call(pattern, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for entry in page.get("Contents", ()):
            if fnmatch.fnmatchcase(entry["Key"], key_pattern):
                yield f"s3://{bucket}/{entry['Key']}"
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
