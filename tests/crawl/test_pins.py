"""Pinning: what is written of a crawl becomes the list of exactly what is read."""

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from configs.crawl import CrawlSource, FilterSpec, PinnedArchives, PinnedDocumentation, PinnedFile, SnapshotSpec
from ray_jobs.checkpoint.keys import key_of, key_payload
from ray_jobs.crawl.pins import pin
from ray_jobs.files import streams
from ray_jobs.files.http import Refused
from tests.crawl.common_crawl_server import CRAWL, Answer, CommonCrawlServer, crawl_layout, etag_of, serving


def source(**fields: object) -> CrawlSource:
    return CrawlSource.model_validate(fields)


def files_of(spec: SnapshotSpec) -> tuple[PinnedFile, ...]:
    assert isinstance(spec.content, PinnedArchives)
    return spec.content.files


def key(spec: SnapshotSpec) -> str:
    return key_of(key_payload(spec.node, spec.version, spec, {}))


@pytest.fixture
def server(data_dir: Path) -> Iterator[CommonCrawlServer]:
    warcs = {
        "CC-MAIN-1.warc.gz": data_dir / "warc/resiliparse/warcfile.warc.gz",
        "CC-MAIN-2.warc.gz": data_dir / "warc/whirlwind-python/whirlwind.warc.gz",
        "CC-MAIN-3.warc.gz": data_dir / "warc/jwarc/cc.warc.gz",
    }
    wets = {"CC-MAIN-2.warc.wet.gz": data_dir / "warc/whirlwind-python/whirlwind.warc.wet.gz"}
    with serving(crawl_layout(warcs, "warc") | crawl_layout(wets, "wet")) as server:
        yield server


def test_a_common_crawl_snapshot_is_pinned_by_url_size_and_etag(server: CommonCrawlServer) -> None:
    spec = pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url}))
    assert spec.crawl == CRAWL
    listed = gzip.decompress(server.files[f"crawl-data/{CRAWL}/warc.paths.gz"]).decode().split()
    assert [file.url for file in files_of(spec)] == [f"{server.url}/{name}" for name in listed]
    for file, name in zip(files_of(spec), listed, strict=True):
        assert (file.size, file.etag) == (len(server.files[name]), etag_of(server.files[name]))


def test_the_first_files_of_either_format_are_taken(server: CommonCrawlServer) -> None:
    first = pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url + "/", "num_files": 2}))
    assert [file.url.rpartition("/")[2] for file in files_of(first)] == ["CC-MAIN-1.warc.gz", "CC-MAIN-2.warc.gz"]
    wet = pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url, "format": "wet"}))
    assert [file.url.rpartition("/")[2] for file in files_of(wet)] == ["CC-MAIN-2.warc.wet.gz"]


def test_pinning_again_gives_the_same_key_until_a_file_changes(server: CommonCrawlServer) -> None:
    written = source(common_crawl={"crawl": CRAWL, "base_url": server.url, "num_files": 2})
    before = key(pin(written))
    assert key(pin(written)) == before
    server.files[next(name for name in server.files if name.endswith("CC-MAIN-2.warc.gz"))] += b"\0"
    assert key(pin(written)) != before


def test_a_pressed_server_is_pinned_all_the_same(server: CommonCrawlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.http_client(()), "_sleep", lambda seconds: None)
    server.play(f"crawl-data/{CRAWL}/warc.paths.gz", Answer(403), Answer(503, {"Retry-After": "1"}))
    for name in server.files:
        if name.endswith(".warc.gz"):
            server.play(name, Answer(503), Answer(403))
    assert len(files_of(pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url})))) == 3


def test_progress_is_told_a_file(server: CommonCrawlServer) -> None:
    told: list[tuple[int, int]] = []
    pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url}), lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_crawl_that_does_not_exist_is_named(server: CommonCrawlServer) -> None:
    with pytest.raises(Refused, match=r"CC-MAIN-1999-01/warc\.paths\.gz does not exist.*crawl's name"):
        pin(source(common_crawl={"crawl": "CC-MAIN-1999-01", "base_url": server.url}))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../secret.warc.gz", "http://169.254.169.254/x", "file:///etc/passwd"]
)
def test_a_listing_may_not_lead_elsewhere(server: CommonCrawlServer, name: str) -> None:
    server.files[f"crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress(name.encode())
    with pytest.raises(ValueError, match="not relative to"):
        pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url}))


@pytest.mark.parametrize("listing", [b"<html>not gzip</html>", gzip.compress(b"x" * 999)[:20], gzip.compress(b"\n")])
def test_a_listing_that_is_none_is_an_error(server: CommonCrawlServer, listing: bytes) -> None:
    server.files[f"crawl-data/{CRAWL}/warc.paths.gz"] = listing
    with pytest.raises(ValueError, match=r"warc\.paths\.gz (is no gzipped list|lists no file)"):
        pin(source(common_crawl={"crawl": CRAWL, "base_url": server.url}))


def test_globs_name_files_in_order_by_sha256(tmp_path: Path) -> None:
    for name in ("b.warc.gz", "a.warc.gz", "c.txt", "deep/d.warc.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for pattern in (f"{tmp_path}/*.warc.gz", f"file://{tmp_path}/*.warc.gz"):
        spec = pin(source(archives={"name": "mine", "urls": [pattern, f"{tmp_path}/a.warc.gz"]}))
        assert [file.url for file in files_of(spec)] == [f"file://{tmp_path}/{name}.warc.gz" for name in "ab"]
        assert files_of(spec)[0].sha256 == hashlib.sha256(b"a.warc.gz").hexdigest()
    deep = pin(source(archives={"urls": [f"{tmp_path}/**/*.warc.gz"]}))
    assert len(files_of(deep)) == 3


def test_names_with_spaces_and_percent_signs_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "100% of it.warc"
    path.write_bytes(b"x")
    file = files_of(pin(source(archives={"urls": [str(path)]})))[0]
    assert streams.CheckedFile(file).open().read() == b"x"


@pytest.mark.parametrize(
    ("pattern", "error"), [("/nowhere/*.warc", "no file matches"), ("/nowhere/a.warc", "is not a file")]
)
def test_files_that_are_not_there_are_named(pattern: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"{error}.*check the path|{pattern}.*{error}".replace("*.", r"\*\.")):
        pin(source(archives={"urls": [pattern]}))


def test_a_local_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(b"one")
    file = files_of(pin(source(archives={"urls": [str(path)]})))[0]
    path.write_bytes(b"two")
    with pytest.raises(streams.Changed, match="sha256"):
        streams.CheckedFile(file)
    path.unlink()
    with pytest.raises(streams.Changed, match="gone"):
        streams.CheckedFile(file)


@pytest.mark.parametrize(
    "url", ["gopher://a/b", "ftp://a/b.warc", "hdfs://a/b", "github://a:b@/c", "memory://x", "zip://a::file://b"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="use one of http, https, s3, file"):
        source(archives={"urls": [url]})
    with pytest.raises(ValidationError, match="use one of http, https, s3, file"):
        source(common_crawl={"crawl": CRAWL, "base_url": url})
    with pytest.raises(ValidationError, match="use one of http, https, s3, file"):
        PinnedFile(url=url, size=1)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "here are 0 .none.: give exactly one of common_crawl, archives, documentation"),
        ({"common_crawl": {"crawl": CRAWL}, "documentation": {}}, "here are 2 .common_crawl, documentation."),
        ({"common_crawl": {"crawl": "../etc"}}, "common_crawl.crawl"),
        ({"common_crawl": {"crawl": CRAWL, "format": "wat"}}, "'warc' or 'wet'"),
        ({"common_crawl": {"crawl": CRAWL, "num_file": 3}}, "num_file"),
        ({"archives": {"urls": []}}, "archives.urls"),
        ({"documentation": {"num_operations": 3, "num_docstring_pages": 0, "num_files": 9}}, "lower num_files"),
    ],
)
def test_a_source_that_is_wrong_says_where(fields: dict, error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        source(**fields)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"languages": ["english"]}, "no language 'english': use its codes"),
        ({"min_words": 10, "max_words": 5}, "min_words 10 is above max_words 5"),
        ({"min_language_score": 1.5}, "min_language_score"),
        ({"max_symbol_ratio": float("nan")}, "max_symbol_ratio"),
    ],
)
def test_a_filter_that_is_wrong_says_where(fields: dict, error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        FilterSpec.model_validate(fields)


def test_the_order_of_languages_is_no_other_filter() -> None:
    assert FilterSpec(languages=("en", "de", "en")) == FilterSpec(languages=("de", "en"))


def test_documentation_is_pinned_by_versions_without_a_network() -> None:
    content = pin(source(documentation={"num_operations": 10, "num_docstring_pages": 5, "num_files": 2})).content
    assert isinstance(content, PinnedDocumentation)
    assert {"python", "zlib", "botocore", "numpy"} <= set(content.versions)
    assert (content.num_operations, content.num_docstring_pages, content.num_files) == (10, 5, 2)


def test_a_pin_survives_json() -> None:
    for spec in (pin(source(documentation={})), pin(source(archives={"urls": [__file__]}))):
        assert SnapshotSpec.model_validate_json(spec.model_dump_json()) == spec


def test_pinning_documentation_imports_nothing_heavy() -> None:
    code = (
        "import sys; from configs.crawl import CrawlSource; from ray_jobs.crawl.pins import pin; "
        "pin(CrawlSource(documentation={})); "
        "print([m for m in ('httpx', 'boto3', 'botocore', 'pyarrow', 'ray', 'fastwarc', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_s3_without_credentials_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    streams.s3_client.cache_clear()
    with pytest.raises(ValueError, match=r"needs AWS credentials.*data\.commoncrawl\.org"):
        pin(source(common_crawl={"crawl": CRAWL, "base_url": "s3://commoncrawl", "num_files": 1}))
    streams.s3_client.cache_clear()
