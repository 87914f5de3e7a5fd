"""The alarm for sources that deduplication nearly empties."""

import logging
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.dedup import sources
from ray_jobs.dedup.sources import SourceLoss, count_sources, over_loss, total, total_each
from tests.dedup.corpus import computed, document_table, published, rows


def counted(urls: list[str], kept: list[bool]) -> pa.Table:
    return count_sources(pa.chunked_array([pa.array(urls, pa.string())]), np.array(kept, dtype=bool))


def test_a_source_is_the_host_whatever_stands_around_it() -> None:
    urls = [
        "https://Example.org/a",
        "http://example.org:8080/b",
        "http://user@example.org?q",
        "http://[2001:db8::1]:80/",
        "dns:example.org",
        "",
    ]
    found = {row["source"]: row["documents_in"] for row in counted(urls, [True] * 6).to_pylist()}
    assert found == {"example.org": 3, "[2001:db8::1]": 1, "": 2}


def test_counts_of_shards_add_up_whatever_their_order() -> None:
    one = counted(["http://a/1", "http://b/1"], [True, False])
    other = counted(["http://a/2", "http://c/1"], [False, True])
    empty = counted([], [])
    expected = [("a", 2, 1), ("b", 1, 0), ("c", 1, 1)]
    for tables in ([one, other, empty], [empty, other, one]):
        assert [tuple(row.values()) for row in total(tables).to_pylist()] == expected


def test_counts_of_many_shards_are_added_without_holding_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ROWS_HELD", 20)
    alive: list[weakref.ref[pa.Table]] = []
    most = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal most
        for shard in range(300):
            table = counted([f"http://host{(shard * 7 + i) % 50}/" for i in range(5)], [i % 2 == 0 for i in range(5)])
            alive.append(weakref.ref(table))
            yield table
            del table
            most = max(most, sum(one() is not None for one in alive))

    found = total_each(tables())
    assert found["documents_in"].to_pylist() == [30] * 50
    assert found["documents_kept"].to_pylist() == [18] * 50
    assert most <= 12, "of 5 rows each, beside sums of 50"
    assert total_each([]).num_rows == 0


def test_the_threshold_itself_and_small_sources_raise_no_alarm() -> None:
    given = counted(
        [f"http://nine/{i}" for i in range(10)] + [f"http://all/{i}" for i in range(10)] + ["http://small/1"],
        [True] + [False] * 9 + [False] * 10 + [False],
    )
    assert over_loss(given, 0.9, 10) == [SourceLoss("all", 10, 0)]
    assert [loss.source for loss in over_loss(given, 0.85, 1)] == ["all", "small", "nine"]
    assert over_loss(given, 1.0, 1) == []


def test_a_site_of_copies_is_named_in_the_log_and_in_the_manifest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    table = document_table(["the same page at many addresses says the same"] * 20 + [f"page {i}" for i in range(20)])
    urls = [f"http://{'copies' if i < 20 else 'pages'}.example/{i}" for i in range(40)]
    table = table.set_column(table.schema.get_field_index("url"), "url", pa.array(urls))
    spec = DedupSpec(min_source_documents=10)
    with caplog.at_level(logging.WARNING):
        checkpoint = computed(spec, {"documents": published(store, [table[:15], table[15:]])}, store)
    assert "dropped 19 of 20 documents of copies.example" in caplog.text
    assert "pages.example" not in caplog.text
    assert checkpoint.manifest.metrics["sources_over_loss"] == 1
    per_source = [row for row in rows(checkpoint, "sources.parquet") if row["documents_in"] == 20]
    assert {"source": "copies.example", "documents_in": 20, "documents_kept": 1} in per_source
