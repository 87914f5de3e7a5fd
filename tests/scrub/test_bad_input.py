"""Documents as crawls have them at their worst: all come out, counted, and unchanged but for what is replaced."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.scrub import ScrubSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import check_funnel
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.scrub.ngrams import find_matches, index_examples
from ray_jobs.scrub.patterns import PLACEHOLDERS
from ray_jobs.scrub.replace import scrub_column
from ray_jobs.scrub.scanner import Scanner
from tests.dedup.corpus import computed, document_table, published, rows, table
from tests.memory import peak_bytes

ODD = {
    "empty": b"",
    "one word": b"word",
    "one byte": b"\n",
    "white space": b" \t\r\n\x0b\x0c \xc2\xa0\xe3\x80\x80",
    "NULs": b"\x00\x00 between \x00\x00",
    "only NULs": b"\x00" * 4096,
    "no UTF-8": b"\xff\xfe\x80 latin-1 caf\xe9",
    "lone surrogate": b"\xed\xa0\x80 and \xed\xbf\xbf",
    "overlong": b"\xc0\xaf \xe0\x80\xaf",
    "cut character": "日本語".encode()[:-1],
    "above Unicode": b"\xf4\x90\x80\x80",
    "byte order mark": b"\xef\xbb\xbfword",
    "UTF-16": "wörter".encode("utf-16-le"),
    "one long word": b"x" * 2_000_000,
    "digits": b"0123456789" * 20_000,
    "at signs": b"@" * 100_000,
    "placeholders": b"<EMAIL> and <PHONE>, as scrubbed before",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def scrubbed(store: Store, tables: list[pa.Table]) -> Checkpoint:
    checkpoint = computed(ScrubSpec(), {"documents": published(store, tables)}, store)
    counters = checkpoint.manifest.counters
    check_funnel(counters, "scrub")
    assert counters["documents_in"] == sum(one.num_rows for one in tables)
    assert [row["id"] for row in rows(checkpoint, "audit.parquet")] == [
        id for one in tables for id in one["id"].to_pylist()
    ]
    return checkpoint


def bytes_of(checkpoint: Checkpoint) -> list[bytes]:
    files = checkpoint.files("documents.parquet")
    return [text for file in files for text in table(checkpoint, file)["text"].cast(pa.large_binary()).to_pylist()]


def test_nothing_is_lost_or_changed(store: Store) -> None:
    checkpoint = scrubbed(store, [document_table(list(ODD.values()))])
    assert dict(zip(ODD, bytes_of(checkpoint), strict=True)) == ODD
    counters = checkpoint.manifest.counters
    assert counters["documents_kept"] == len(ODD) and counters["documents_changed"] == 0
    assert counters["text_bytes_in"] == counters["text_bytes_kept"] == sum(map(len, ODD.values()))


@pytest.mark.parametrize("name", ODD)
def test_what_is_personal_is_found_within_each(store: Store, name: str) -> None:
    odd = ODD[name]
    checkpoint = scrubbed(store, [document_table([b"\n".join([odd, b"mail a@example.org", odd])])])
    assert bytes_of(checkpoint) == [b"\n".join([odd, b"mail <EMAIL>", odd])]


def test_a_shard_of_duplicates_is_a_shard_like_others(store: Store) -> None:
    text = "call (541) 714-1388 or write to a@example.org"
    checkpoint = scrubbed(store, [document_table([text] * 1_000), document_table(["", ""], 1)])
    assert set(bytes_of(checkpoint)[:1_000]) == {b"call <PHONE> or write to <EMAIL>"}
    assert checkpoint.manifest.counters["replaced.phone"] == 1_000


def test_files_without_documents_stay_files_without_documents(store: Store) -> None:
    tables = [document_table([]), document_table(["one"], 1), document_table([], 2)]
    checkpoint = scrubbed(store, tables)
    made = [table(checkpoint, file) for file in checkpoint.files("documents.parquet")]
    assert [one.num_rows for one in made] == [0, 1, 0]
    assert all(one.schema == tables[0].schema for one in made)


def test_a_document_of_100_mb_passes_with_what_is_personal_in_it(store: Store) -> None:
    line = b"The river carries the water of many small streams down to the mill; it has 24 wheels.\n"
    half = line * (50_000_000 // len(line))
    (text,) = bytes_of(
        scrubbed(store, [document_table([b"a@example.org " + half + b"93.184.216.34 " + half + b"\xff"])])
    )
    assert text == b"<EMAIL> " + half + b"<IP> " + half + b"\xff"


def column(text: bytes) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([text], pa.large_binary()).view(pa.large_string())])


DENSE = {
    "phones": b"".join(b"(541) 714-%04d, " % (i % 10_000) for i in range(500_000)),
    "e-mails": b"".join(b"a%d@example%d.org\n" % (i, i % 977) for i in range(350_000)),
    "what looks like addresses": b"1.2.3." * 1_300_000,
}


@pytest.mark.parametrize("name", DENSE)
def test_memory_for_text_full_of_what_looks_personal_is_a_small_multiple_of_it(name: str) -> None:
    scanner, text = Scanner(tuple(PLACEHOLDERS)), column(DENSE[name])
    scrub_column(column(DENSE[name][:1000]), scanner)
    assert peak_bytes(lambda: scrub_column(text, scanner)) < 16 * len(DENSE[name])


HUGE = {
    "one word": b"x" * 100_000_000,
    "NULs": b"\x00" * 100_000_000,
    "no UTF-8": b"\xff\xc3\xed\xa0" * 25_000_000,
    "digits": b"0123456789" * 10_000_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_document_of_100_mb_of_one_kind_passes_in_a_small_multiple_of_its_memory(name: str) -> None:
    scanner, text = Scanner(tuple(PLACEHOLDERS)), column(HUGE[name])
    index = index_examples(pa.array(["one two three four five six seven eight"]), np.zeros(1, np.int32), 8, 8)

    def scrubbed_whole() -> None:
        assert scrub_column(text, scanner).text.equals(text.combine_chunks())
        assert len(find_matches(text, index).document) == 0

    assert peak_bytes(scrubbed_whole) < 6 * len(HUGE[name])
