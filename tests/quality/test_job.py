from pathlib import Path

import pytest

from configs.quality import QualitySpec
from ray_jobs.checkpoint.store import Store, open_store
from tests.dedup.corpus import computed, document_table, published, rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


TEXTS = ["The cat sat on the mat.", "A wheel turns in the race.", "zxcv qwer tyui"]


def test_without_a_model_every_document_is_kept_and_none_is_scored(store: Store) -> None:
    tables = [document_table(TEXTS[:2]), document_table(TEXTS[2:], 1)]
    checkpoint = computed(QualitySpec(), {"documents": published(store, tables)}, store)
    assert rows(checkpoint, "documents.parquet") == [row for one in tables for row in one.to_pylist()]
    assert {(row["decision"], row["perplexity"], row["bucket"]) for row in rows(checkpoint, "audit.parquet")} == {
        ("kept", None, None)
    }
    counters = checkpoint.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"], counters["documents_scored"]) == (3, 3, 0)


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        computed(QualitySpec(), {"documents": published(store, [document_table([])])}, store)
