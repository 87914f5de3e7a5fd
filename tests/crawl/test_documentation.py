"""The documentation crawl: real pages, a genuine WARC, the same bytes every time."""

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from configs.crawl import CrawlSource, FilterSpec, PinnedDocumentation
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.crawl import job
from ray_jobs.crawl.docstrings import DOCUMENTED_PACKAGES
from ray_jobs.crawl.pins import pin
from ray_jobs.crawl.site import MIRROR_EVERY, pages_of
from ray_jobs.crawl.text import main_text
from ray_jobs.files.installed import documented_modules
from tests.crawl.nodes import NO_HEURISTICS, run

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"num_operations": 60, "num_docstring_pages": 20, "num_files": 2}


def pinned(**fields: int) -> PinnedDocumentation:
    content = pin(CrawlSource.model_validate({"documentation": SMALL | fields})).content
    assert isinstance(content, PinnedDocumentation)
    return content


@pytest.fixture(scope="module")
def archive() -> bytes:
    return job.make_archive({"file": 0}, pinned()).files[job.ARCHIVE].data


def test_two_runs_give_the_same_bytes_whatever_the_hash_seed(archive: bytes) -> None:
    code = (
        "import hashlib, json, sys; from configs.crawl import PinnedDocumentation; from ray_jobs.crawl.job import *; "
        "content = PinnedDocumentation.model_validate_json(sys.argv[1]); "
        "print(hashlib.sha256(make_archive({'file': 0}, content).files[ARCHIVE].data).hexdigest())"
    )
    for seed in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-c", code, pinned().model_dump_json()],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.strip() == hashlib.sha256(archive).hexdigest()


def test_warcio_reads_it_and_finds_all_digests_right(archive: bytes) -> None:
    kinds = []
    for record in ArchiveIterator(io.BytesIO(archive), check_digests="raise"):
        kinds.append(record.rec_type)
        headers = record.rec_headers
        payload = record.content_stream().read()
        assert headers["WARC-Date"] == "2024-01-01T00:00:00Z"
        assert re.fullmatch(r"<urn:uuid:[0-9a-f-]{14}5[0-9a-f-]{21}>", headers["WARC-Record-ID"])
        if record.rec_type == "response":
            digest = base64.b32encode(hashlib.sha1(payload).digest()).decode()
            assert headers["WARC-Payload-Digest"] == f"sha1:{digest}"
            assert record.http_headers.get_statuscode() == "200"
            assert int(record.http_headers["Content-Length"]) == len(payload)
        if record.rec_type == "request":
            assert record.http_headers["Host"] == "docs.headrace.invalid"
    assert kinds[0] == "warcinfo" and kinds[1:] == ["request", "response"] * (len(kinds) // 2)


def test_no_address_of_the_machine_is_in_it(archive: bytes) -> None:
    for record in ArchiveIterator(io.BytesIO(archive), no_record_parse=True):
        headers, body = str(record.rec_headers), record.raw_stream.read()
        assert not re.search(r"127\.0\.0\.1:\d|localhost:\d{4,5}", headers)
        assert not re.search(rb"\r\n[^\r\n]*127\.0\.0\.1:\d", body.split(b"\r\n\r\n")[0])
        assert str(Path.home()).encode() + b"/" not in body
        assert str(ROOT).encode() not in body


def test_record_ids_are_unique_in_the_crawl(archive: bytes) -> None:
    other = job.make_archive({"file": 1}, pinned()).files[job.ARCHIVE].data
    ids = [
        record.rec_headers["WARC-Record-ID"]
        for data in (archive, other)
        for record in ArchiveIterator(io.BytesIO(data))
    ]
    assert len(ids) == len(set(ids))


def test_each_file_holds_its_share_and_no_page_twice() -> None:
    content = pinned(num_operations=101, num_docstring_pages=31, num_files=4)
    files = [list(pages_of(content, file)) for file in range(4)]
    pages = [page for file in files for page in file if page.path != "/robots.txt"]
    assert len({page.path for page in pages}) == len(pages)
    assert sum(page.path.startswith("/botocore/") for page in pages) == 101
    mirrors = [page for page in pages if page.path.startswith("/latest/")]
    assert len(pages) - 101 - len(mirrors) == 31
    assert len(mirrors) == sum(
        -(-len([p for p in file if p.path.startswith("/botocore/")]) // MIRROR_EVERY) for file in files
    )
    originals = {page.path: page.body for page in pages}
    assert all(originals[page.path.removeprefix("/latest")] == page.body for page in mirrors)
    assert max(map(len, files)) - min(map(len, files)) <= 3


def test_pages_are_spread_over_services_and_packages() -> None:
    content = pinned(num_operations=200, num_docstring_pages=100, num_files=4)
    paths = [page.path.split("/") for file in range(4) for page in pages_of(content, file)]
    assert len({path[2] for path in paths if path[1] == "botocore"}) >= 40
    assert len({path[1] for path in paths if path[1] not in {"botocore", "latest", "robots.txt"}}) >= 5


def test_pages_have_text_to_extract_and_boilerplate_to_leave() -> None:
    for page in list(pages_of(pinned(), 0))[1:]:
        html = page.body.decode()
        text = main_text(html)
        assert text is not None and len(text) > 100, page.path
        assert "Cookie preferences" in html and "Cookie preferences" not in text, page.path
        assert "On this site" not in text, page.path


def test_docstrings_are_read_without_importing() -> None:
    code = (
        "import sys; from ray_jobs.crawl.docstrings import docstring_pages; pages = list(docstring_pages(0, 40)); "
        "assert len(pages) > 5; packages = ('numpy', 'pyarrow', 'prefect', 'ray', 'numba', 'boto3', 'rich'); "
        "print([name for name in packages if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_modules_come_in_the_same_order_everywhere_and_tests_are_left_out() -> None:
    names = [name for _, name, _ in documented_modules(("python", *DOCUMENTED_PACKAGES))]
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    assert not any(
        "tests" in name.split(".") or any(part.startswith("_") for part in name.split(".")) for name in names
    )
    assert len(names) == len(set(names)) > 1000


def test_another_environment_than_the_pinned_one_is_refused() -> None:
    other = pinned().model_copy(update={"versions": pinned().versions | {"botocore": "1.0"}})
    with pytest.raises(UserError, match=r"botocore 1\.0 .here .*--refresh"):
        job.make_archive({"file": 0}, other)


def test_more_pages_than_there_are_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"lower snapshot\.documentation\.num_docstring_pages"):
        job.make_archive({"file": 0}, pinned(num_docstring_pages=100 * 64, num_files=64))


def test_the_crawl_goes_through_both_nodes(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    spec = pin(CrawlSource.model_validate({"documentation": SMALL}))
    snapshot = run(store, spec)
    assert [file.name for file in snapshot.manifest.outputs] == [job.ARCHIVE] * 2
    # API documentation repeats itself, so the heuristics stay out of it, as in the demo's recipe.
    filtered = run(store, FilterSpec(**NO_HEURISTICS), {"crawl": snapshot})
    counters = filtered.manifest.counters
    assert counters["documents_in"] == snapshot.manifest.counters["pages"]
    assert counters["documents_kept"] > 0.75 * counters["documents_in"]
    assert counters["dropped.not_html"] == 2  # robots.txt of each file
    again = run(open_store(f"file://{tmp_path}/other"), spec)
    assert again.manifest.content_digest == snapshot.manifest.content_digest
    assert json.loads(snapshot.manifest.model_dump_json())["payload"]["spec"]["content"]["kind"] == "documentation"


def test_filter_goes_on_after_its_archives_were_made_again(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    spec = pin(CrawlSource.model_validate({"documentation": SMALL}))
    snapshot = run(store, spec)
    filtered = run(store, FilterSpec(), {"crawl": snapshot})
    path = filtered.manifest.path
    store.delete([snapshot.manifest.outputs[1].path, path.manifest, path.receipt("documents", 1)])
    again = run(store, spec)
    assert again.manifest.outputs[1].path != snapshot.manifest.outputs[1].path
    resumed = run(store, FilterSpec(), {"crawl": again})
    assert resumed.manifest.content_digest == filtered.manifest.content_digest
    assert resumed.manifest.outputs[0] == filtered.manifest.outputs[0]
