from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.scrub import ScrubSpec
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.scrub.patterns import PLACEHOLDERS
from ray_jobs.scrub.replace import scrub_column
from ray_jobs.scrub.scanner import Scanner
from tests.dedup.corpus import computed, document_table, published, rows, table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


TEXTS = [
    "nothing personal here",
    "mail a@example.org or b@example.org, server 93.184.216.34",
    "Phone: (541) 714-1388",
]


def test_documents_keep_all_but_their_personal_data(store: Store) -> None:
    tables = [document_table(TEXTS[:2]), document_table(TEXTS[2:], 1)]
    checkpoint = computed(ScrubSpec(), {"documents": published(store, tables)}, store)
    given_rows = [row for one in tables for row in one.to_pylist()]
    scrubbed = rows(checkpoint, "documents.parquet")
    assert [row["text"] for row in scrubbed] == [
        "nothing personal here",
        "mail <EMAIL> or <EMAIL>, server <IP>",
        "Phone: <PHONE>",
    ]
    assert [{**row, "text": ""} for row in scrubbed] == [{**row, "text": ""} for row in given_rows]
    assert table(checkpoint, checkpoint.files("documents.parquet")[0]).schema == tables[0].schema
    assert [[row[kind] for kind in ("email", "ip", "ssn", "phone")] for row in rows(checkpoint, "audit.parquet")] == [
        [0, 0, 0, 0],
        [2, 1, 0, 0],
        [0, 0, 0, 1],
    ]
    counters = checkpoint.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"], counters["documents_changed"]) == (3, 3, 2)
    assert (counters["replaced.email"], counters["replaced.ip"], counters["replaced.phone"]) == (2, 1, 1)
    assert counters["text_bytes_kept"] == sum(len(row["text"].encode()) for row in scrubbed)


def test_kinds_that_were_not_asked_for_stay(store: Store) -> None:
    source = published(store, [document_table(TEXTS)])
    checkpoint = computed(ScrubSpec(replace=("ip",)), {"documents": source}, store)
    assert rows(checkpoint, "documents.parquet")[1]["text"] == "mail a@example.org or b@example.org, server <IP>"
    assert "replaced.email" not in checkpoint.manifest.counters


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        store = open_store(tmp_path / attempt)
        source = published(store, [document_table(TEXTS)])
        digests.add(computed(ScrubSpec(), {"documents": source}, store).manifest.content_digest)
    assert len(digests) == 1


def test_odd_documents_pass_unchanged(store: Store) -> None:
    odd = [b"", b"\x00", b"\xed\xa0\x80 lone surrogate \xff", b"a@example.org\xed\xa0\x80"]
    source = published(store, [document_table([]), document_table(odd, 1)])
    checkpoint = computed(ScrubSpec(), {"documents": source}, store)
    text = table(checkpoint, checkpoint.files("documents.parquet")[1])["text"].cast(pa.large_binary()).to_pylist()
    assert text == [*odd[:3], b"<EMAIL>\xed\xa0\x80"]


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        computed(ScrubSpec(), {"documents": published(store, [document_table([])])}, store)


documents = st.lists(st.sampled_from(["a@b.de", " ", "x", "é", "93.184.216.34", "日"]), max_size=12).map("".join)


@settings(deadline=None)
@given(st.lists(documents, max_size=6), st.integers(0, 3))
def test_a_column_is_scrubbed_as_its_documents_are_one_by_one(texts: list[str], skipped: int) -> None:
    scanner = Scanner(tuple(PLACEHOLDERS))
    array = pa.array(texts, pa.large_string())[skipped:]  # a slice does not begin at its buffer's start
    wanted = []
    for text in texts[skipped:]:
        data = text.encode()
        for span in reversed(scanner.find(data)):
            data = data[: span.start] + PLACEHOLDERS[span.kind] + data[span.end :]
        wanted.append(data.decode())
    for column in (pa.chunked_array([array]), pa.chunked_array([array[:1], array[1:]], pa.large_string())):
        assert scrub_column(column, scanner).text.to_pylist() == wanted
