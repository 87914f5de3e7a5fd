"""Pinning: what a person wrote of a crawl becomes the list of exactly what will be read.

Runs where `headrace plan` runs, before keys are computed; a pin is kept and reused until it is refreshed.
"""

import fnmatch
import glob
import gzip
import importlib.metadata
import platform
import re
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from configs.crawl import (
    ArchiveUrls,
    CommonCrawl,
    CrawlSource,
    Documentation,
    PinnedArchives,
    PinnedDocumentation,
    PinnedFile,
    SnapshotSpec,
)
from ray_jobs.crawl import archives
from ray_jobs.crawl.docstrings import DOCUMENTED_PACKAGES
from ray_jobs.crawl.site import GENERATOR

Progress = Callable[[int, int], None]
"""Called with (files pinned, files in all)."""

# Requests for size and etag at once. Common Crawl asks for few; a full crawl's 90,000 take about half an hour.
PIN_CONNECTIONS = 8
WILDCARD = re.compile(r"[*?\[]")


def pin(source: CrawlSource, progress: Progress | None = None) -> SnapshotSpec:
    """Looks up what the source holds now.

    Raises:
        ValueError: a file, crawl or package is not there or may not be read; the message says what to do.
        ConnectionError: a server did not answer within the client's patience.
    """
    if source.common_crawl is not None:
        return _pin_common_crawl(source.common_crawl, progress)
    if source.archives is not None:
        return _pin_urls(source.archives, progress)
    assert source.documentation is not None, "CrawlSource has exactly one source"
    return _pin_documentation(source.documentation)


def _pin_common_crawl(source: CommonCrawl, progress: Progress | None) -> SnapshotSpec:
    base = source.base_url.rstrip("/")
    listing = f"{base}/crawl-data/{source.crawl}/{source.format}.paths.gz"
    try:
        names = gzip.decompress(_read(listing, source.allowed_hosts)).decode().split()
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{listing} is no gzipped list of paths ({error}): check base_url and name") from error
    wrong = next((name for name in names if "://" in name or name.startswith("/") or ".." in name.split("/")), None)
    if wrong is not None:
        raise ValueError(f"{listing} names {wrong!r}, which is not relative to {base}: it is no Common Crawl listing")
    if not names:
        raise ValueError(f"{listing} lists no file: choose another crawl")
    urls = [f"{base}/{name}" for name in names[: source.num_files]]
    return _snapshot(source.crawl, urls, source.allowed_hosts, progress)


def _pin_urls(source: ArchiveUrls, progress: Progress | None) -> SnapshotSpec:
    urls = dict.fromkeys(url for pattern in source.urls for url in _expand(pattern))
    return _snapshot(source.name, list(urls), source.allowed_hosts, progress)


def _snapshot(crawl: str, urls: list[str], allowed_hosts: tuple[str, ...], progress: Progress | None) -> SnapshotSpec:
    files = []
    with ThreadPoolExecutor(PIN_CONNECTIONS) as pool:
        for file in pool.map(lambda url: describe(url, allowed_hosts), urls):
            files.append(file)
            if progress is not None:
                progress(len(files), len(urls))
    return SnapshotSpec(crawl=crawl, content=PinnedArchives(files=tuple(files), allowed_hosts=allowed_hosts))


def describe(url: str, allowed_hosts: tuple[str, ...] = ()) -> PinnedFile:
    """The file as it is now: its size, and its etag or (for local files) its sha256."""
    if archives.is_local(url):
        path = archives.local_path(url).absolute()
        if not path.is_file():
            raise ValueError(f"{path} is not a file: check the path")
        return PinnedFile(url=path.as_uri(), size=path.stat().st_size, sha256=archives.sha256_of(path))
    if url.startswith("s3://"):
        return archives.describe_s3(url)
    resource = archives.http_client(allowed_hosts).describe(url)
    return PinnedFile(url=url, size=resource.size, etag=resource.etag)


def _read(url: str, allowed_hosts: tuple[str, ...]) -> bytes:
    stream = archives.PinnedArchive(describe(url, allowed_hosts), allowed_hosts).open()
    try:
        return stream.read()
    finally:
        stream.close()


def _expand(pattern: str) -> list[str]:
    """The files that a URL or glob names, sorted; a URL without wildcards names itself."""
    if not WILDCARD.search(pattern) or pattern.startswith(("http://", "https://")):
        return [pattern]  # in an HTTP URL ? begins the query
    if pattern.startswith("s3://"):
        found: Iterable[str] = _expand_s3(pattern)
    else:
        local = str(archives.local_path(pattern).expanduser())
        paths = glob.glob(local, recursive=True)  # noqa: PTH207 - absolute patterns
        found = (path for path in paths if Path(path).is_file())
    names = sorted(found)
    if not names:
        raise ValueError(f"no file matches {pattern}: check the path and its wildcards")
    return names


def _expand_s3(pattern: str) -> Iterable[str]:
    bucket, key_pattern = archives.split_s3(pattern)
    prefix = WILDCARD.split(key_pattern, maxsplit=1)[0]
    token: dict[str, str] = {}
    while True:
        page = archives.s3_call(pattern, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        for entry in page.get("Contents", ()):
            if fnmatch.fnmatchcase(entry["Key"], key_pattern):
                yield f"s3://{bucket}/{entry['Key']}"
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _pin_documentation(source: Documentation) -> SnapshotSpec:
    return SnapshotSpec(
        crawl="documentation",
        content=PinnedDocumentation(
            generator=GENERATOR,
            versions=installed_versions(),
            num_operations=source.num_operations,
            num_docstring_pages=source.num_docstring_pages,
            num_files=source.num_files,
        ),
    )


def installed_versions() -> dict[str, str]:
    """The versions that decide the documentation crawl's bytes.

    Raises:
        ValueError: a package is not installed.
    """
    versions = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    for package in ("botocore", *DOCUMENTED_PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise ValueError(
                f"the documentation crawl reads {package}, which is not installed: pip install {package}"
            ) from error
    return versions
