"""What the quality node makes of classifiers and word lists."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from configs.classifier import ClassifierSpec, PinnedUrl, ThresholdSpec
from configs.quality import QualitySpec
from configs.toxicity import ToxicWords
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.quality.classifier_job import chosen_threshold, classifier_of
from tests.dedup.corpus import computed, document_table, published, rows
from tests.quality.test_classifier_job import MILL, SPAM
from tests.quality.test_classifier_job import texts as words


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def scored(store: Store) -> dict[str, Checkpoint]:
    """A corpus of which half is like the reference, and a classifier that says so."""
    crawl = published(store, [document_table(words(SPAM, 40, 3)), document_table(words(MILL, 40, 4), 1)], "crawl")
    reference = published(store, [document_table(words(MILL, 80, 5), crawl="REF")], "reference")
    spec = ClassifierSpec(num_buckets=1000, heldout_share=0.3, threshold=ThresholdSpec(recall=0.9))
    classifier = computed(spec, {"reference": reference, "crawl": crawl}, store)
    return {"documents": crawl, "classifier": classifier}


def test_probabilities_are_measured_and_drop_nothing_by_default(store: Store, scored: dict[str, Checkpoint]) -> None:
    node = computed(QualitySpec(), scored, store)
    documents = rows(scored["documents"], "documents.parquet")
    expected = classifier_of(scored["classifier"]).probabilities(
        pa.array([row["text"] for row in documents], pa.large_string()), "reference"
    )
    audit = rows(node, "audit.parquet")
    assert [row["quality"] for row in audit] == expected.tolist()
    assert {(row["decision"], row["toxicity"]) for row in audit} == {("kept", None)}
    assert node.manifest.counters["documents_kept"] == 80


def test_the_top_share_is_that_of_the_whole_corpus(store: Store, scored: dict[str, Checkpoint]) -> None:
    audit = rows(computed(QualitySpec(quality_top_share=0.25), scored, store), "audit.parquet")
    kept = [row["quality"] for row in audit if row["decision"] == "kept"]
    dropped = [row for row in audit if row["decision"] == "dropped"]
    assert 20 <= len(kept) <= 24 and min(kept) > max(row["quality"] for row in dropped)
    assert {(row["rule"], row["value"] < row["threshold"] <= min(kept)) for row in dropped} == {("quality", True)}
    assert all("DCLM" in row["source"] and row["value"] == row["quality"] for row in dropped)


def test_a_threshold_is_a_number_or_what_the_classifier_chose(store: Store, scored: dict[str, Checkpoint]) -> None:
    chosen = chosen_threshold(scored["classifier"])
    for wanted in (chosen, "chosen"):
        node = computed(QualitySpec(quality_threshold=wanted), scored, store)
        assert node.manifest.metrics["quality_threshold"] == chosen
        for row in rows(node, "audit.parquet"):
            assert (row["decision"] == "kept") == (row["quality"] >= chosen)
    inputs = {"documents": scored["documents"], "toxicity": scored["classifier"]}
    for row in rows(computed(QualitySpec(toxicity_threshold="chosen"), inputs, store), "audit.parquet"):
        assert (row["rule"] == "toxicity") == (row["toxicity"] >= chosen) and row["quality"] is None
    for field in ({"quality_threshold": 0.5}, {"toxicity_threshold": "chosen"}):
        with pytest.raises(ValueError, match="no classifier fills its slot: add its node"):
            computed(QualitySpec(**field), {"documents": scored["documents"]}, store)
    with pytest.raises(ValueError, match="two ways to say the same"):
        QualitySpec(quality_threshold=0.5, quality_top_share=0.5)


def test_words_of_a_documents_language_and_those_for_every_language_are_found(store: Store, tmp_path: Path) -> None:
    listed = tmp_path / "de"
    listed.write_text("Mistkerl\n\nDonner wetter\n")
    pinned = PinnedUrl(url=str(listed), sha256=hashlib.sha256(listed.read_bytes()).hexdigest())
    texts = ["You fool, you FOOL and oaf", "Du Mistkerl, Donner  Wetter! fool", "Du Mistkerl", "a fooling mistkerl"]
    table = document_table(texts)
    languages = pa.array(["en", "de", "fr", "en"])
    table = table.set_column(table.schema.get_field_index("language"), "language", languages)
    words = ToxicWords(terms={"en": ("fool", "oaf")}, lists={"de": pinned}, max_terms=2)
    node = computed(QualitySpec(toxic_words=words), {"documents": published(store, [table])}, store)
    audit = rows(node, "audit.parquet")
    assert [row["toxic_terms"] for row in audit] == [2, 3, 0, 0]
    assert [row["rule"] for row in audit] == [None, "toxic_terms", None, None]
    assert audit[0]["toxic_share"] == pytest.approx(11 / 20)
    assert node.manifest.counters["documents_with_toxic_words"] == 2
    by_share = QualitySpec(toxic_words=words.model_copy(update={"max_terms": None, "max_share": 0.5}))
    audit = rows(computed(by_share, {"documents": published(store, [table])}, store), "audit.parquet")
    assert [row["rule"] for row in audit] == ["toxic_words", "toxic_words", None, None]
    without = computed(QualitySpec(toxic_words=None), {"documents": published(store, [table])}, store)
    assert {row["toxic_terms"] for row in rows(without, "audit.parquet")} == {None}
