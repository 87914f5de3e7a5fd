"""filter over real archives: every record is accounted for, every reason is named."""

import gzip
import re
from collections import Counter
from pathlib import Path

import pytest

from configs.crawl import CrawlSource, FilterSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.crawl.documents import REASONS
from ray_jobs.crawl.pins import pin
from ray_jobs.crawl.rules import SOURCES
from ray_jobs.crawl.statistics import NAMES
from ray_jobs.files import streams
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.crawl.common_crawl_server import CRAWL, Answer, Break, crawl_layout, serving
from tests.crawl.nodes import NO_HEURISTICS, counted, filter_one, rows, run, table

EVERYTHING = FilterSpec(languages=(), min_language_score=0, min_words=1, max_symbol_ratio=100, **NO_HEURISTICS)

# What is in each of warcio's odd files, by hand from the files themselves: the archive's faults, its documents.
WARCIO: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "bad.arc": ({"archive_damaged": 3}, {"dropped.not_html": 1, "dropped.record_damaged": 3}),
    "example.arc": ({}, {"documents_kept": 1}),
    "example.arc.gz": ({}, {"documents_kept": 1}),
    "example-space-in-url.arc": ({"archive_truncated": 1}, {"dropped.record_truncated": 1}),
    "example-bad-non-chunked.warc.gz": ({}, {"documents_kept": 1, "dropped.revisit": 1}),
    "example-bad.warc.gz.bad": ({}, {"documents_kept": 1, "dropped.revisit": 1, "dropped.http_status": 1}),
    "example-digest.warc": ({}, {}),
    "example-iana.org-chunked.warc": ({}, {"documents_kept": 1}),
    "example-resource.warc.gz": ({}, {"documents_kept": 1}),
    "example-space-in-target-uri.warc.gz": ({}, {"dropped.not_html": 1}),
    "example-trunc.warc": ({"archive_damaged": 1}, {"documents_kept": 1, "dropped.record_damaged": 1}),
    "example-wget-bad-target-uri.warc.gz": ({}, {"documents_kept": 1, "dropped.not_html": 2}),
    "example-wrong-chunks.warc.gz": ({}, {"documents_kept": 1}),
    "example.warc": ({}, {"documents_kept": 1, "dropped.revisit": 1}),
    "example.warc.gz": ({}, {"documents_kept": 1, "dropped.revisit": 1}),
    "post-test.warc.gz": ({}, {"dropped.not_html": 3}),
}


@pytest.mark.parametrize("name", WARCIO)
def test_odd_files_of_warcio_give_counted_reasons(data_dir: Path, name: str) -> None:
    output = filter_one(data_dir / "warc/warcio" / name, EVERYTHING)
    faults, documents = WARCIO[name]
    assert counted(output, "archive_") == faults
    assert counted(output, "documents_kept", "dropped.") == documents
    assert output.counters["documents_in"] == sum(documents.values())
    for document in rows(output, "documents.parquet"):
        words = "Internet Assigned Numbers" if "iana" in document["url"] else "Example Domain"
        assert words in document["text"]


def test_all_of_warcios_files_are_known(data_dir: Path) -> None:
    assert {path.name for path in (data_dir / "warc/warcio").iterdir()} == set(WARCIO)


def test_a_clipped_archive_is_truncated_and_its_record_dropped(data_dir: Path) -> None:
    output = filter_one(data_dir / "warc/resiliparse/clipped.warc.gz")
    assert counted(output, "archive_", "documents_", "dropped.") == {
        "archive_truncated": 1,
        "documents_in": 1,
        "dropped.record_truncated": 1,
    }


@pytest.mark.parametrize("folder", ["dolma", "jwarc", "resiliparse", "warcio", "whirlwind-python"])
def test_every_record_that_entered_is_in_the_audit(data_dir: Path, folder: str) -> None:
    for path in sorted((data_dir / "warc" / folder).glob("*arc*")):
        output = filter_one(path)
        audit = rows(output, "audit.parquet")
        assert len(audit) == output.counters["documents_in"], path
        decisions = Counter(row["decision"] for row in audit)
        assert decisions["kept"] == output.counters["documents_kept"], path
        assert {
            f"dropped.{rule}": count for rule, count in Counter(row["rule"] for row in audit if row["rule"]).items()
        } == (counted(output, "dropped.")), path
        assert all(row["source"] for row in audit if row["decision"] == "dropped"), path
        assert {row["rule"] for row in audit} <= {None, *SOURCES, *REASONS}, path
        kept = [row["id"] for row in audit if row["decision"] == "kept"]
        assert [row["id"] for row in rows(output, "documents.parquet")] == kept, path
        ids = [row["id"] for row in audit]
        assert ids == sorted(set(ids)), path
        records = counted(output, "records.")
        entered = sum(
            records.get(f"records.{kind}", 0) for kind in ("response", "resource", "conversion", "revisit", "unknown")
        )
        # A stretch of damage after the last record is of unknown type and was not read as a record.
        assert entered <= output.counters["documents_in"] <= entered + 1, path


def test_containers_make_no_difference(data_dir: Path) -> None:
    outputs = [
        filter_one(data_dir / f"warc/resiliparse/warcfile{suffix}") for suffix in (".warc", ".warc.gz", ".warc.lz4")
    ]
    texts = [[row["text"] for row in rows(output, "documents.parquet")] for output in outputs]
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 12
    counters = [output.counters for output in outputs]
    assert counters[0] == counters[1] == counters[2]


def test_wgets_angle_brackets_are_no_part_of_urls(data_dir: Path) -> None:
    output = filter_one(data_dir / "warc/dolma/sample-0000.warc.gz")
    urls = [row["url"] for row in rows(output, "audit.parquet")]
    assert "https://soldaini.net/" in urls
    assert not any(url.startswith("<") or url.endswith(">") for url in urls)


def test_wet_text_is_taken_as_it_is(data_dir: Path) -> None:
    output = filter_one(data_dir / "warc/whirlwind-python/whirlwind.warc.wet.gz")
    (document,) = rows(output, "documents.parquet")
    assert document["url"] == "https://an.wikipedia.org/wiki/Escopete"
    assert document["text"].startswith("Escopete")
    assert document["id"] == "test/00000/000000000466"


def test_tables_have_the_agreed_columns(data_dir: Path) -> None:
    output = filter_one(data_dir / "warc/jwarc/cc.warc.gz")
    documents = table(output.files["documents.parquet"].data).schema
    assert [(field.name, str(field.type)) for field in documents] == [
        ("id", "string"),
        ("url", "string"),
        ("language", "string"),
        ("language_score", "float"),
        ("text", "large_string"),
    ]
    audit = table(output.files["audit.parquet"].data).schema.names
    assert {"id", "url", "language", "language_score", "decision", "rule", "value", "threshold"} <= set(audit)


def test_each_reason_is_reached(tmp_path: Path) -> None:
    german = "Der Fluss trägt das Wasser vieler kleiner Bäche hinab zur Mühle und dreht ihr Rad den ganzen Tag. " * 12
    blocks = {
        "kept": record(http(page())),
        "http_status": record(http(page(), status="404 Not Found")),
        "not_html": record(http(b"{}", content_type="application/json")),
        "too_large": record(http(page("x" * 7000))),
        "encoding_damaged": record(http(b"\x1f\x8b\x08" + b"\xff" * 90, "Content-Encoding: gzip")),
        "revisit": record(b"", kind="revisit"),
        "continuation": record(b"", kind="continuation"),
        "unknown_type": record(http(page()), kind="screenshot"),
        "tangled_html": record(http(b"<div>" * 1100)),
        "no_text": record(http(b"<html><script>x</script></html>")),
        "language": record(http(page(german))),
        "min_words": record(http(page(PROSE))),
        "max_words": record(http(page(PROSE * 55))),
        "symbol_ratio": record(http(page((PROSE + "# # # # # ") * 12))),
    }
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*blocks.values()))
    output = filter_one(path, FilterSpec(max_words=1000, max_bytes=6100, **NO_HEURISTICS))
    found = [row["rule"] or "kept" for row in rows(output, "audit.parquet")]
    assert found == list(blocks)
    (language,) = [row for row in rows(output, "audit.parquet") if row["rule"] == "language"]
    assert language["language"] == "de" and language["value"] > 0.9 and "lid.176" in language["source"]
    (words,) = [row for row in rows(output, "audit.parquet") if row["rule"] == "min_words"]
    assert (words["value"], words["threshold"], words["num_words"]) == (20, 50, 20)
    (status,) = [row for row in rows(output, "audit.parquet") if row["rule"] == "http_status"]
    assert (status["value"], status["threshold"]) == (404, 200)


def test_scores_are_kept_for_documents_that_are_dropped(data_dir: Path) -> None:
    strict, lax = (
        filter_one(data_dir / "warc/dolma/sample-0000.warc.gz", spec)
        for spec in (FilterSpec(min_words=900), EVERYTHING)
    )
    columns = ("id", "language", "language_score", *NAMES)
    first, second = (
        [{name: row[name] for name in columns} for row in rows(output, "audit.parquet")] for output in (strict, lax)
    )
    assert first == second
    assert strict.counters["documents_kept"] < lax.counters["documents_kept"]


def test_the_same_archive_gives_the_same_bytes(data_dir: Path) -> None:
    first, second = (filter_one(data_dir / "warc/dolma/sample-0001.warc.gz") for _ in range(2))
    assert {name: file.data for name, file in first.files.items()} == {
        name: file.data for name, file in second.files.items()
    }
    assert first == second


@pytest.fixture
def layout(data_dir: Path) -> dict[str, bytes]:
    names = ("resiliparse/warcfile.warc.gz", "dolma/sample-0001.warc.gz", "whirlwind-python/whirlwind.warc.gz")
    return crawl_layout({Path(name).name: data_dir / "warc" / name for name in names}, "warc")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.http_client(()), "_sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_crawl_over_http_gives_what_its_files_give(layout: dict[str, bytes], data_dir: Path, tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    with serving(layout) as server:
        snapshot = run(store, pin(CrawlSource(common_crawl={"crawl": CRAWL, "base_url": server.url})))
        for name in layout:
            if "warcfile" in name or "sample" in name:
                server.play(
                    name, Answer(503), Break(20_000), Answer(403, {"Retry-After": "2"}), Break(9000, reset=False)
                )
        filtered = run(store, FilterSpec(languages=(), **NO_HEURISTICS), {"crawl": snapshot})
    assert snapshot.manifest.outputs == ()
    assert snapshot.manifest.metrics["archives"] == 3
    local = [
        row["text"]
        for name in ("resiliparse/warcfile.warc.gz", "dolma/sample-0001.warc.gz", "whirlwind-python/whirlwind.warc.gz")
        for row in rows(filter_one(data_dir / "warc" / name), "documents.parquet")
    ]
    remote = [
        row
        for file in filtered.files("documents.parquet", "documents")
        for row in table(filtered.read(file)).to_pylist()
    ]
    assert [row["text"] for row in remote] == local and len(local) > 25
    assert [row["id"] for row in remote] == sorted(row["id"] for row in remote)
    assert all(row["id"].startswith(f"{CRAWL}/0000") for row in remote)
    counters = filtered.manifest.counters
    assert counters["documents_in"] == counters["documents_kept"] + sum(
        value for name, value in counters.items() if name.startswith("dropped.")
    )


@pytest.mark.usefixtures("no_waiting")
def test_an_archive_that_changed_upstream_is_quarantined_within_the_limit(
    layout: dict[str, bytes], tmp_path: Path
) -> None:
    store = open_store(f"file://{tmp_path}/store")
    with serving(layout) as server:
        snapshot = run(store, pin(CrawlSource(common_crawl={"crawl": CRAWL, "base_url": server.url})))
        changed = next(name for name in server.files if "warcfile" in name)
        server.files[changed] = server.files[changed][:-1] + b"?"
        filtered = run(store, FilterSpec(languages=(), max_quarantined_share=0.4), {"crawl": snapshot})
        with pytest.raises(NodeFailed, match="changed since it was pinned"):
            run(store, FilterSpec(languages=("en",)), {"crawl": snapshot})
    (quarantined,) = filtered.manifest.quarantined
    assert "changed since it was pinned" in quarantined.reason and quarantined.shard == 0
    assert filtered.manifest.counters["archives"] == 2


@pytest.mark.slow
def test_a_real_crawl_in_many_languages_is_read_whole(data_dir: Path) -> None:
    output = filter_one(data_dir / "debian/debian-multi.warc.gz")
    assert output.counters["records.response"] == output.counters["documents_in"] == 7177
    assert counted(output, "archive_") == {}
    assert output.counters["dropped.http_status"] == 21
    assert output.counters["documents_kept"] > 6000
    # Translations are in folders named after their language; a page that nobody translated yet is English.
    told = Counter()
    for row in rows(output, "audit.parquet"):
        folder = re.search(r"/html/([a-z]{2})-[A-Z]{2}/", row["url"])
        if (
            folder
            and row["language"]
            and folder.group(1) in {"de", "fr", "ja", "ru", "zh", "es", "it", "el", "cs", "ar"}
        ):
            told[row["language"] in {folder.group(1), "en"}] += 1
    assert told[True] > 1000 and told[False] < 0.01 * told[True]
    assert len(output.info["languages"]) > 20


def test_bad_input_of_every_kind_is_counted_with_its_reason(tmp_path: Path) -> None:
    prose = PROSE * 12
    cases: dict[str, tuple[bytes, str | None]] = {
        "empty body": (record(http(b"")), "no_text"),
        "empty block": (record(b""), "not_html"),
        "headers alone": (record(http(b"")[:-2]), "no_text"),
        "empty text": (record(b"", kind="conversion", content_type="text/plain"), "no_text"),
        "one word": (record(http(page("mill"))), "language_score"),
        "one letter": (record(b"x", kind="conversion", content_type="text/plain"), "language_score"),
        "NULs alone": (record(http(b"\0" * 5000)), "no_text"),
        "NULs between letters": (record(http(page(prose).replace(b"r", b"\0r\0"))), None),
        "bytes that are no characters": (record(http(page(prose) + b"\xff\xfe\xc3" * 50)), None),
        "markup alone": (record(http(b"<b><i></i>" * 20_000)), "no_text"),
        "deep divs": (record(http(b"<div>" * 200_000 + prose.encode())), "tangled_html"),
        "deep spans": (record(http(b"<span>" * 5_000 + prose.encode())), None),
        "an image": (record(http(b"\x89PNG\r\n\x1a\n" + bytes(200))), "not_html"),
        "a PDF called HTML": (record(http(b"%PDF-1.7 " + prose.encode())), "not_html"),
        "100 MB in 100 KB": (
            record(http(gzip.compress(b"<p>mill " * 13_000_000, 9), "Content-Encoding: gzip")),
            "too_large",
        ),
        "100 MB": (record(http(page("mill " * 20_000_000))), "too_large"),
    }
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*(data for data, _ in cases.values()), record(http(page(prose)))))
    output = filter_one(path, FilterSpec(languages=(), **NO_HEURISTICS))
    found = [row["rule"] for row in rows(output, "audit.parquet")]
    assert dict(zip(cases, found, strict=False)) == {name: reason for name, (_, reason) in cases.items()}
    assert found[-1] is None and len(found) == len(cases) + 1
    assert counted(output, "archive_") == {}
    texts = [row["text"] for row in rows(output, "documents.parquet")]
    assert all(PROSE.strip() in text and "\0" not in text for text in texts)


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.arc", "a.wet.gz"])
def test_an_archive_of_no_bytes_is_counted_and_makes_empty_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    output = filter_one(tmp_path / name)
    assert counted(output, "archive_", "documents_", "dropped.") == {"archive_empty": 1}
    assert rows(output, "audit.parquet") == rows(output, "documents.parquet") == []


def test_a_shard_of_duplicates_only_keeps_each(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*[record(http(page()))] * 300))
    output = filter_one(path)
    assert output.counters["documents_kept"] == 300
    assert len({row["id"] for row in rows(output, "audit.parquet")}) == 300
