"""Pinning: what a person wrote of a crawl becomes the list of exactly what will be read.

Runs where `headrace plan` runs, before keys are computed; a pin is kept and reused until it is refreshed.
"""

import gzip
import zlib

from configs.crawl import (
    ArchiveUrls,
    CommonCrawl,
    CrawlSource,
    Documentation,
    PinnedArchives,
    PinnedDocumentation,
    SnapshotSpec,
)
from ray_jobs.crawl.docstrings import DOCUMENTED_PACKAGES
from ray_jobs.crawl.site import GENERATOR
from ray_jobs.files.installed import python_version, versions_of
from ray_jobs.files.pins import Progress, describe, describe_all, pinned
from ray_jobs.files.streams import CheckedFile


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
    files = describe_all(urls, source.allowed_hosts, progress)
    return SnapshotSpec(crawl=source.crawl, content=PinnedArchives(files=files, allowed_hosts=source.allowed_hosts))


def _pin_urls(source: ArchiveUrls, progress: Progress | None) -> SnapshotSpec:
    files = pinned(source.urls, source.allowed_hosts, progress)
    content = PinnedArchives(files=files, allowed_hosts=source.allowed_hosts)
    return SnapshotSpec(crawl=source.name, content=content)


def _read(url: str, allowed_hosts: tuple[str, ...]) -> bytes:
    stream = CheckedFile(describe(url, allowed_hosts), allowed_hosts).open()
    try:
        return stream.read()
    finally:
        stream.close()


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
    versions = {"python": python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    return versions | versions_of(("botocore", *DOCUMENTED_PACKAGES), "the documentation crawl")
