"""Archives on S3, from a real server."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from configs.crawl import CrawlSource, FilterSpec, PinnedArchives, PinnedFile
from ray_jobs.crawl.pins import pin
from ray_jobs.files import streams
from tests.crawl.common_crawl_server import CRAWL, crawl_layout
from tests.crawl.nodes import filter_one
from tests.s3_server import S3Server


@pytest.fixture
def bucket(s3_server: S3Server, data_dir: Path) -> Any:
    """Common Crawl's layout below `mirror/` of a real bucket."""
    streams.s3_client.cache_clear()
    client = boto3.client("s3")
    names = ("resiliparse/warcfile.warc.gz", "whirlwind-python/whirlwind.warc.gz")
    for key, data in crawl_layout({Path(name).name: data_dir / "warc" / name for name in names}, "warc").items():
        client.put_object(Bucket=s3_server.bucket, Key=f"mirror/{key}", Body=data)
    yield client
    streams.s3_client.cache_clear()


def pinned(**source: object) -> tuple[PinnedFile, ...]:
    content = pin(CrawlSource.model_validate(source)).content
    assert isinstance(content, PinnedArchives)
    return content.files


def test_a_crawl_on_s3_gives_what_its_files_give(bucket: Any, s3_server: S3Server, data_dir: Path) -> None:
    base = f"s3://{s3_server.bucket}/mirror"
    files = pinned(common_crawl={"crawl": CRAWL, "base_url": base})
    assert [file.url.rpartition("/")[2] for file in files] == ["warcfile.warc.gz", "whirlwind.warc.gz"]
    assert all(file.etag for file in files)
    spec = FilterSpec(languages=())
    local = filter_one(data_dir / "warc/resiliparse/warcfile.warc.gz", spec)
    assert json.dumps(filter_one(files[0], spec).counters) == json.dumps(local.counters)
    assert filter_one(files[0], spec).files == local.files


def test_globs_on_s3_name_objects_in_order(bucket: Any, s3_server: S3Server) -> None:
    files = pinned(archives={"urls": [f"s3://{s3_server.bucket}/mirror/*.warc.gz"]})
    assert [file.url.rpartition("/")[2] for file in files] == ["warcfile.warc.gz", "whirlwind.warc.gz"]
    with pytest.raises(ValueError, match="no file matches"):
        pinned(archives={"urls": [f"s3://{s3_server.bucket}/mirror/*.zip"]})


def test_an_object_that_changed_is_refused(bucket: Any, s3_server: S3Server) -> None:
    bucket.put_object(Bucket=s3_server.bucket, Key="changing.warc", Body=b"one")
    (file,) = pinned(archives={"urls": [f"s3://{s3_server.bucket}/changing.warc"]})
    bucket.put_object(Bucket=s3_server.bucket, Key="changing.warc", Body=b"two")
    with pytest.raises(streams.Changed, match="its etag is another one"):
        streams.CheckedFile(file).open().read()


def test_an_object_that_does_not_exist_is_named(bucket: Any, s3_server: S3Server) -> None:
    with pytest.raises(ValueError, match=r"nothing\.warc does not exist: check bucket and key"):
        pinned(archives={"urls": [f"s3://{s3_server.bucket}/nothing.warc"]})


def test_an_object_is_read_from_any_offset(bucket: Any, s3_server: S3Server) -> None:
    bucket.put_object(Bucket=s3_server.bucket, Key="digits", Body=b"0123456789")
    (file,) = pinned(archives={"urls": [f"s3://{s3_server.bucket}/digits"]})
    archive = streams.CheckedFile(file)
    assert [archive.open(start).read() for start in (0, 4, 10)] == [b"0123456789", b"456789", b""]
