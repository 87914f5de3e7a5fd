"""How well abusive comments are told from others: 252 comments in English, labelled by people (Surge AI).

Each floor is the value that was seen less a margin of 0.03 (the standard error of an AUC of 252 texts is about 0.02).
"""

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ray_jobs.quality.features import Features
from ray_jobs.quality.linear import LinearModel, train
from ray_jobs.quality.roc import roc
from ray_jobs.quality.words import Matcher

FOLDS = 10
FEATURES = Features(word_ngrams=2, num_buckets=1 << 18, min_characters=3, max_characters=5, lowercase=True)
MARGIN = 0.03


@pytest.fixture
def comments(data_dir: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    with (data_dir / "toxicity" / "surge_toxicity_en.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 252
    return [row["text"] for row in rows], np.array([row["is_toxic"] == "Toxic" for row in rows])


def classifier(texts: list[str], is_toxic: npt.NDArray[np.bool_], epochs: int, learning_rate: float) -> LinearModel:
    return train(
        pa.array(texts, pa.large_string()),
        is_toxic.astype(np.int64),
        ("other", "toxic"),
        FEATURES,
        min_word_count=1,
        max_words=1_000_000,
        dimension=16,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=1,
    )


def probabilities(model: LinearModel, texts: list[str]) -> npt.NDArray[np.float64]:
    return model.probabilities(pa.array(texts, pa.large_string()), "toxic").astype(np.float64)


def cross_validated(texts: list[str], is_toxic: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Each comment's probability by a classifier that never saw it."""
    fold = np.random.default_rng(0).integers(0, FOLDS, len(texts))
    scores = np.empty(len(texts))
    for number in range(FOLDS):
        seen, unseen = (np.flatnonzero(part) for part in (fold != number, fold == number))
        model = classifier([texts[i] for i in seen], is_toxic[seen], 50, 1.0)
        scores[unseen] = probabilities(model, [texts[i] for i in unseen])
    return scores


def test_a_list_and_a_classifier_tell_abusive_comments(
    comments: tuple[list[str], npt.NDArray[np.bool_]], data_dir: Path
) -> None:
    texts, is_toxic = comments
    listed = (data_dir / "toxicity" / "ldnoobw" / "en").read_text().splitlines()
    matcher = Matcher(listed)
    shares = np.array([matcher.measure(text.encode()).share for text in texts])
    scores = cross_validated(texts, is_toxic)
    assert roc(shares, is_toxic).auc >= 0.594 - MARGIN
    assert roc(scores, is_toxic).auc >= 0.881 - MARGIN
    # What holds a listed word first, each part by probability.
    assert roc(scores + (shares > 0), is_toxic).auc >= 0.898 - MARGIN


def test_preferred_and_rejected_answers_are_weak_labels(
    comments: tuple[list[str], npt.NDArray[np.bool_]], data_dir: Path
) -> None:
    """Of 1,873 pairs of a dialogue's last answers (hh-rlhf, harmless) the rejected one is taken as abusive: what is
    learnt is better than chance, and far below 200 labels of the comments' own kind."""
    pairs = [json.loads(line) for line in (data_dir / "pref" / "hh-rlhf-harmless.jsonl").read_text().splitlines()]
    answers = [pair[side].rsplit("\n\nAssistant:", 1)[1] for pair in pairs for side in ("chosen", "rejected")]
    model = classifier(answers, np.arange(len(answers)) % 2 == 1, 15, 0.5)
    texts, is_toxic = comments
    assert roc(probabilities(model, texts), is_toxic).auc >= 0.6608 - 2 * MARGIN
