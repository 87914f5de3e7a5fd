import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from configs.quality import Limits, NgramLmSpec, QualitySpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.quality.histograms import BINS_A_DOUBLING
from ray_jobs.quality.reader import read_arpa
from ray_jobs.quality.rules import Scores, Thresholds, decide
from ray_jobs.quality.scoring import model_files
from tasks.node import task_of
from tests.dedup.corpus import computed, document_table, published, rows, table
from tests.quality.golden import corpus, probes
from tests.quality.test_ngram_lm import in_language, trained
from tests.quality.texts import scores_of

BIN = 2 ** (1 / BINS_A_DOUBLING)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def model(store: Store) -> Checkpoint:
    """An ngram-lm of English."""
    return trained(NgramLmSpec(heldout_share=0), [document_table(corpus())], store)


def pages(num: int = 100) -> list[str]:
    """Texts of every degree of likeness to the model's."""
    return [f"{probes()[number % 40]}\n{corpus()[number]}" for number in range(num)]


def judged(store: Store, model: Checkpoint | None, tables: list[pa.Table], **spec: Any) -> Checkpoint:
    inputs = {"documents": published(store, tables)} | ({"language_model": model} if model else {})
    return computed(QualitySpec(**spec), inputs, store)


def test_without_a_model_every_document_is_kept_and_none_is_scored(store: Store) -> None:
    tables = [document_table(pages(4)), document_table(pages(2), 1)]
    checkpoint = judged(store, None, tables)
    assert rows(checkpoint, "documents.parquet") == [row for one in tables for row in one.to_pylist()]
    assert {(row["decision"], row["perplexity"], row["bucket"]) for row in rows(checkpoint, "audit.parquet")} == {
        ("kept", None, None)
    }
    counters = checkpoint.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"], counters["documents_scored"]) == (6, 6, 0)


def test_perplexities_are_the_models(store: Store, model: Checkpoint) -> None:
    found = rows(judged(store, model, [document_table(pages(30)), document_table(pages(), 1)]), "scores.parquet")
    expected = scores_of(read_arpa(model.read(model_files(model)["en"])), [*pages(30), *pages()]).perplexity
    assert [row["perplexity"] for row in found] == expected.tolist()


def test_buckets_hold_their_percentiles_of_all_files(store: Store, model: Checkpoint) -> None:
    checkpoint = judged(store, model, [document_table(pages()[:37]), document_table(pages()[37:], 1)])
    audit = rows(checkpoint, "audit.parquet")
    perplexity = np.array([row["perplexity"] for row in audit])
    limits = json.loads(checkpoint.read(checkpoint.file("thresholds.json")))["en"]
    for bucket, percent in (("head", 30), ("middle", 60)):
        exact = np.percentile(perplexity, percent, method="inverted_cdf")
        assert exact <= limits[bucket] <= exact * BIN * 1.000001
    assert [row["bucket"] for row in audit] == [
        "head" if p <= limits["head"] else "middle" if p <= limits["middle"] else "tail" for p in perplexity
    ]
    counters = checkpoint.manifest.counters
    assert [counters[f"bucket.{bucket}"] for bucket in ("head", "middle", "tail")] == pytest.approx([30, 30, 40], abs=3)
    assert counters["documents_kept"] == len(audit)


def test_a_bucket_that_is_not_kept_is_dropped_and_says_why(store: Store, model: Checkpoint) -> None:
    source = document_table(pages())
    checkpoint = judged(store, model, [source], keep=("head", "middle"))
    audit = rows(checkpoint, "audit.parquet")
    limits = json.loads(checkpoint.read(checkpoint.file("thresholds.json")))["en"]
    dropped = [row for row in audit if row["decision"] == "dropped"]
    assert {row["rule"] for row in dropped} == {"perplexity_tail"} == {f"perplexity_{row['bucket']}" for row in dropped}
    for row in dropped:
        assert row["value"] == pytest.approx(row["perplexity"]) and row["threshold"] == limits["middle"] < row["value"]
        assert row["source"].startswith("CCNet")
    kept = [row["id"] for row in audit if row["decision"] == "kept"]
    assert [row["id"] for row in rows(checkpoint, "documents.parquet")] == kept
    assert table(checkpoint, checkpoint.file("documents.parquet")).schema == source.schema
    assert checkpoint.manifest.counters["dropped.perplexity_tail"] == len(dropped) == 100 - len(kept)
    assert "perplexity_tail" in str(task_of("quality").facts(checkpoint.manifest))


def test_documents_in_other_languages_are_kept_without_a_score(store: Store, model: Checkpoint) -> None:
    tables = [document_table(pages()), in_language(document_table(pages(5), 1), "de")]
    tables.append(in_language(document_table(pages(1), 2), None))
    checkpoint = judged(store, model, tables, keep=("head",))
    others = rows(checkpoint, "audit.parquet")[100:]
    assert [(row["decision"], row["perplexity"], row["bucket"]) for row in others] == [("kept", None, None)] * 6
    assert checkpoint.manifest.counters["documents_scored"] == 100


def test_limits_by_hand_take_the_place_of_percentiles(store: Store, model: Checkpoint) -> None:
    limits = {"en": {"head": 9.0, "middle": 12.0}, "de": {"head": 1.0, "middle": 2.0}}
    checkpoint = judged(store, model, [document_table(pages())], limits=limits)
    assert json.loads(checkpoint.read(checkpoint.file("thresholds.json"))) == dict(sorted(limits.items()))
    for row in rows(checkpoint, "audit.parquet"):
        p = row["perplexity"]
        assert row["bucket"] == ("head" if p <= 9 else "middle" if p <= 12 else "tail")


def test_the_audit_is_enough_to_decide_again(store: Store, model: Checkpoint) -> None:
    """Other buckets are kept, without reading a text, as the node itself would keep them."""
    everything = judged(store, model, [document_table(pages())])
    other = QualitySpec(keep=("tail",))
    limits = {
        language: Limits(**bounds)
        for language, bounds in json.loads(everything.read(everything.file("thresholds.json"))).items()
    }
    again = [
        decide(Scores("en", row["perplexity"]), Thresholds(limits), other) is None
        for row in rows(everything, "audit.parquet")
    ]
    anew = judged(store, model, [document_table(pages())], keep=("tail",))
    assert again == [row["decision"] == "kept" for row in rows(anew, "audit.parquet")]
    assert 0 < sum(again) < len(again)


def test_odd_documents_are_kept_as_they_are(store: Store, model: Checkpoint) -> None:
    odd = [b"", b"\x00", b"\xed\xa0\x80 lone surrogate \xff", b"\n \n", b"the mill"]
    checkpoint = judged(store, model, [document_table([]), document_table(odd, 1)], keep=("head",), head_percentile=50)
    text = table(checkpoint, checkpoint.files("documents.parquet")[1])["text"].cast(pa.large_binary()).to_pylist()
    assert text == [b"", b"\x00", b"\n \n", b"the mill"]
    assert [row["bucket"] for row in rows(checkpoint, "audit.parquet")] == [None, None, "middle", None, "head"]


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        store = open_store(tmp_path / attempt)
        lm = trained(NgramLmSpec(heldout_share=0), [document_table(corpus())], store)
        digests.add(judged(store, lm, [document_table(pages())]).manifest.content_digest)
    assert len(digests) == 1


@pytest.mark.clients
def test_kenlm_sorts_documents_into_the_same_buckets(store: Store, model: Checkpoint) -> None:
    pytest.importorskip("kenlm", reason="needs KenLM: pip install 'headrace[kenlm]'")
    ours, theirs = (judged(store, model, [document_table(pages())], scorer=name) for name in ("headrace", "kenlm"))
    found, expected = rows(ours, "audit.parquet"), rows(theirs, "audit.parquet")
    assert [row["bucket"] for row in found] == [row["bucket"] for row in expected]
    assert np.allclose([row["perplexity"] for row in found], [row["perplexity"] for row in expected], rtol=1e-4)


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        judged(store, None, [document_table([])])


@pytest.mark.parametrize(
    "fields",
    [
        {"head_percentile": 70},
        {"limits": {"en": {"head": 3, "middle": 2}}},
        {"keep": ["top"]},
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"middle|head"):
        QualitySpec(**fields)
