import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.classifier import ClassifierSpec, PinnedUrl, ThresholdSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.quality.classifier_job import chosen_threshold, classifier_of
from ray_jobs.quality.roc import roc
from tests.dedup.corpus import computed, document_table, published, rows

SPEC = ClassifierSpec(num_buckets=1000, heldout_share=0.3)
MILL = ["water", "wheel", "mill", "stone", "grain", "flour", "channel", "river"]
SPAM = ["click", "buy", "free", "casino", "prize", "winner", "now", "cheap"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return open_store(tmp_path / "store")


def texts(words: list[str], number: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice([*words, "the", "of"], 12)) for _ in range(number)]


def sides(store: Store) -> dict[str, Checkpoint]:
    reference = [document_table(texts(MILL, 60, 1), crawl="REF"), document_table(texts(MILL, 40, 2), 1, crawl="REF")]
    crawl = [document_table(texts(SPAM, 50, 3)), document_table([]), document_table(texts(SPAM, 50, 4), 2)]
    return {"reference": published(store, reference, "reference"), "crawl": published(store, crawl, "crawl")}


def test_a_reference_is_told_from_the_crawl_on_documents_held_out(store: Store) -> None:
    node = computed(SPEC, sides(store), store)
    heldout = rows(node, "heldout.parquet")
    counters = node.manifest.counters
    assert (counters["texts_trained"], counters["texts_heldout"]) == (200 - len(heldout), len(heldout))
    assert 40 < len(heldout) < 80 and {row["label"] for row in heldout} == {"reference", "crawl"}
    assert node.manifest.metrics["auc"] == 1.0

    model = classifier_of(node)
    column = pa.array(["a water mill", "a free casino"], pa.large_string())
    assert (model.probabilities(column, "reference") > 0.5).tolist() == [True, False]
    scores, is_reference = (np.array([row[name] for row in heldout]) for name in ("score", "label"))
    curve = roc(scores, is_reference == "reference")
    points = rows(node, "roc.parquet")
    assert [point["true_positives"] for point in points] == curve.true_positives.tolist()
    threshold = chosen_threshold(node)
    chosen = json.loads(node.read(node.file("threshold.json")))
    assert chosen["threshold"] == threshold and curve.at(threshold).recall >= 0.9
    assert sum(chosen["confusion"].values()) == len(heldout)


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        store = open_store(tmp_path / attempt)
        digests.add(computed(SPEC, sides(store), store).manifest.content_digest)
    assert len(digests) == 1


def labelled(store: Store) -> Checkpoint:
    table = document_table([*texts(MILL, 60, 1), *texts(SPAM, 60, 2), *texts(["neutral"], 30, 3)])
    return published(store, [table.append_column("label", pa.array(["ok"] * 60 + ["toxic"] * 60 + ["other"] * 30))])


def test_labels_of_the_documents_themselves_are_learnt(store: Store) -> None:
    spec = SPEC.model_copy(update={"positive": "toxic", "threshold": ThresholdSpec(precision=0.95)})
    node = computed(spec, {"labels": labelled(store)}, store)
    assert classifier_of(node).labels == ("ok", "other", "toxic")
    assert node.manifest.metrics["auc"] == 1.0 and node.manifest.metrics["precision"] >= 0.95
    with pytest.raises(ValueError, match="the labels are 'ok', 'other', 'toxic'"):
        computed(spec.model_copy(update={"positive": "bad"}), {"labels": labelled(store)}, store)


def test_the_sample_is_bounded_and_chosen_by_id(store: Store) -> None:
    inputs = sides(store)
    size = sum(len(row["text"]) for row in rows(inputs["crawl"], "documents.parquet"))
    node = computed(SPEC.model_copy(update={"sample_bytes": size // 2}), inputs, store)
    counters = node.manifest.counters
    # The published corpora do not count their text, which is then taken for thrice what is stored.
    assert counters["texts_trained"] + counters["texts_heldout"] < 200


def weights(path: Path) -> PinnedUrl:
    return PinnedUrl(url=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_weights_by_url_are_used_as_they_are_and_measured_on_what_there_is(store: Store, tmp_path: Path) -> None:
    trained = computed(SPEC, sides(store), store)
    texts = pa.array(["a water mill", "a free casino", "the"], pa.large_string())
    expected = classifier_of(trained).probabilities(texts, "reference")
    for name in ("classifier.safetensors", "classifier.bin"):
        path = tmp_path / name
        path.write_bytes(trained.read(trained.file(name)))
        spec = ClassifierSpec(weights=weights(path))
        alone = computed(spec, {}, store)
        assert np.array_equal(classifier_of(alone).probabilities(texts, "reference"), expected)
        assert chosen_threshold(alone) is None
        measured = computed(spec, sides(store), store)
        assert measured.manifest.counters["texts_heldout"] == 200 and measured.manifest.metrics["auc"] == 1.0


def test_weights_of_another_checksum_or_kind_are_refused(store: Store, tmp_path: Path) -> None:
    for name in ("https://example.org/model.joblib", "/models/model.PT", "s3://bucket/model.pkl"):
        with pytest.raises(ValueError, match="give safetensors"):
            ClassifierSpec(weights=PinnedUrl(url=name, sha256="0" * 64))
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="would run code"):
        computed(ClassifierSpec(weights=weights(path)), {}, store)
    path.write_bytes(b"other")
    changed = PinnedUrl(url=path.as_uri(), sha256=hashlib.sha256(b"pinned").hexdigest())
    with pytest.raises(ValueError, match=f"has the sha256 {hashlib.sha256(b'other').hexdigest()}"):
        computed(ClassifierSpec(weights=changed), {}, store)
    with pytest.raises(ValueError, match="is not a file: check the path"):
        computed(ClassifierSpec(weights=PinnedUrl(url=str(tmp_path / "gone"), sha256="0" * 64)), {}, store)
    with pytest.raises(ValueError, match="use one of http, https, s3, file"):
        PinnedUrl(url="ftp://host/file", sha256="0" * 64)


def test_slots_that_make_no_sense_are_refused_with_what_to_do(store: Store) -> None:
    both = sides(store)
    for inputs in ({}, {"crawl": both["crawl"]}, {**both, "labels": labelled(store)}):
        with pytest.raises(ValueError, match=r"fill either `labels` or both"):
            computed(SPEC, inputs, store)
    with pytest.raises(ValueError, match="no column `label`"):
        computed(SPEC, {"labels": both["crawl"]}, store)
    empty = published(store, [document_table([])], "empty")
    with pytest.raises(ValueError, match="1 label to train on"):
        computed(SPEC, {"reference": empty, "crawl": both["crawl"]}, store)


def test_without_documents_of_both_kinds_held_out_there_is_no_curve(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    few = {**sides(store), "reference": published(store, [document_table(["a mill"], crawl="REF")], "few")}
    node = computed(SPEC.model_copy(update={"heldout_share": 0.01}), few, store)
    assert chosen_threshold(node) is None and "auc" not in node.manifest.metrics
    assert "raise classifier.heldout_share" in caplog.text


def test_a_threshold_is_chosen_in_one_way() -> None:
    with pytest.raises(ValueError, match="one of recall, precision, kept_share"):
        ThresholdSpec(recall=0.5, precision=0.5)
    with pytest.raises(ValueError, match="set both"):
        ClassifierSpec(max_characters=3)
