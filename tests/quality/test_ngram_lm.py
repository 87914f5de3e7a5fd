import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from configs.quality import NgramLmSpec
from configs.scrub import ScrubSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.quality import counts, ngram_lm_job
from ray_jobs.quality.scoring import model_files
from tasks.node import task_of
from tests.dedup.corpus import computed, document_table, published
from tests.quality.golden import FOLDER, PRUNINGS, corpus
from tests.quality.texts import ngrams_of

ALL = NgramLmSpec(heldout_share=0, min_count=(1,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def in_language(table: pa.Table, language: str | None) -> pa.Table:
    column = pa.array([language] * table.num_rows, pa.string())
    return table.set_column(table.schema.get_field_index("language"), "language", column)


def trained(spec: NgramLmSpec, tables: list[pa.Table], store: Store) -> Checkpoint:
    """On documents that a node kept, as its counters say."""
    kept = computed(ScrubSpec(replace=("ip",)), {"documents": published(store, tables, "reference")}, store)
    return computed(spec, {"documents": kept}, store)


def models(node: Checkpoint) -> dict[str, bytes]:
    """Language -> ARPA."""
    return {language: gzip.decompress(node.read(file)) for language, file in model_files(node).items()}


def test_the_model_is_that_of_all_files_together(tmp_path: Path) -> None:
    text, expected = corpus(), ngrams_of((FOLDER / "order3.arpa").read_bytes())
    one = [document_table(["\n".join(text)])]
    three = [document_table(text[:50]), document_table([]), document_table(["\n".join(text[50:])], 2)]
    found = [
        models(trained(ALL, tables, open_store(tmp_path / str(number)))) for number, tables in enumerate([one, three])
    ]
    assert found[0] == found[1]
    assert ngrams_of(found[0]["en"]).keys() == expected.keys()


def test_batches_do_not_change_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [document_table(corpus()), document_table(["", "", "one more"], 1)]
    whole = models(trained(ALL, tables, open_store(tmp_path / "whole")))
    monkeypatch.setattr(ngram_lm_job, "BATCH_BYTES", 100)
    monkeypatch.setattr(counts, "FEW_NGRAMS", 20)
    assert models(trained(ALL, tables, open_store(tmp_path / "batches"))) == whole
    text = pa.chunked_array([corpus()[:9], corpus()[9:30]], pa.large_string())
    slices = list(ngram_lm_job.batches(text))
    assert [line for part in slices for line in part.to_pylist()] == corpus()[:30]
    assert 5 < len(slices) < 30
    assert list(ngram_lm_job.batches(text[:0])) == []


def test_what_comes_seldom_is_left_out(store: Store) -> None:
    spec = NgramLmSpec(order=4, heldout_share=0)
    node = trained(spec, [document_table(corpus())], store)
    assert ngrams_of(models(node)["en"]).keys() == ngrams_of((FOLDER / "order4_pruned.arpa").read_bytes()).keys()
    assert PRUNINGS["order4_pruned"] == tuple(spec.least_count(order) for order in range(1, 5))


def test_each_language_has_a_model_of_its_own_documents(store: Store) -> None:
    tables = [
        in_language(document_table(corpus()), "en"),
        in_language(document_table(["das rad dreht das korn", "das rad"], 1), "de"),
        in_language(document_table(["nobody knows"], 2), None),
    ]
    node = trained(NgramLmSpec(languages=("en", "de"), heldout_share=0), tables, store)
    found = models(node)
    assert "das" in ngrams_of(found["de"]) and "das" not in ngrams_of(found["en"])
    assert not {"nobody", "knows"} & (ngrams_of(found["de"]).keys() | ngrams_of(found["en"]).keys())
    assert node.manifest.metrics["de_words"] == 9
    assert "en_heldout_perplexity" not in node.manifest.metrics


def test_held_out_documents_are_measured_and_not_trained_on(store: Store) -> None:
    node = trained(NgramLmSpec(heldout_share=0.3, min_count=(1,)), [document_table(corpus())], store)
    metrics = node.manifest.metrics
    assert 70 < metrics["en_documents"] < len(corpus()) - 20
    assert 2 < metrics["en_heldout_perplexity"] < 27  # of 27 words as likely as one another
    assert task_of("ngram-lm").headline(node.manifest).endswith(f"perplexity {metrics['en_heldout_perplexity']:,.4g}")


def test_a_sample_takes_its_share_of_whole_documents(store: Store) -> None:
    size = sum(map(len, corpus()))
    spec = NgramLmSpec(sample_bytes=size // 2, heldout_share=0)
    assert 50 < trained(spec, [document_table(corpus())], store).manifest.metrics["en_documents"] < 110


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = {
        trained(NgramLmSpec(), [document_table(corpus())], open_store(tmp_path / run)).manifest.content_digest
        for run in ("one", "two")
    }
    assert len(digests) == 1


def test_odd_documents_are_no_obstacle(store: Store) -> None:
    odd = [b"", b"\x00", b"\xed\xa0\x80 lone \xff surrogate", "日本語".encode(), b"\n\n", b"word"]
    found = ngrams_of(models(trained(ALL, [document_table(odd)], store))["en"])
    assert {"lone surrogate", "日 本 語", "<s> word </s>"} <= found.keys()


def test_a_language_without_text_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match=r"no word in 'fr' .* leave it out of ngram-lm.languages"):
        trained(NgramLmSpec(languages=("en", "fr")), [document_table(corpus())], store)


@pytest.mark.parametrize("min_count", [(2,), (1, 3, 2), (1, 1, 1, 1)])
def test_counts_that_would_break_a_model_are_refused(min_count: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="min_count"):
        NgramLmSpec(min_count=min_count)
    assert NgramLmSpec(order=2).least_count(2) == 1
