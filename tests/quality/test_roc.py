import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.quality.roc import (
    Confusion,
    roc,
    threshold_for_kept_share,
    threshold_for_precision,
    threshold_for_recall,
)

samples = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({is_positive for _, is_positive in rows}) == 2
)


def split(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score / 6 for score, _ in rows]), np.array([is_positive for _, is_positive in rows])


def counted(scores: np.ndarray, positive: np.ndarray, threshold: float) -> Confusion:
    called = scores >= threshold
    return Confusion(
        int((called & positive).sum()),
        int((called & ~positive).sum()),
        int((~called & positive).sum()),
        int((~called & ~positive).sum()),
    )


@given(samples)
def test_the_area_is_the_chance_that_a_positive_has_the_higher_score(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert roc(scores, positive).auc == pytest.approx((np.sign(pairs).mean() + 1) / 2)


@given(samples, st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 2.0]))
def test_a_confusion_table_counts_what_reaches_the_threshold(rows: list[tuple[int, bool]], threshold: float) -> None:
    scores, positive = split(rows)
    assert roc(scores, positive).at(threshold) == counted(scores, positive, threshold)


@given(samples, st.floats(0.01, 1))
def test_the_threshold_for_a_recall_is_the_highest_that_has_it(rows: list[tuple[int, bool]], wanted: float) -> None:
    scores, positive = split(rows)
    threshold = threshold_for_recall(roc(scores, positive), wanted)
    enough = [score for score in set(scores) if counted(scores, positive, score).recall >= wanted - 1e-12]
    assert threshold == max(enough)


@given(samples, st.floats(0.01, 1))
def test_the_threshold_for_a_precision_finds_most(rows: list[tuple[int, bool]], wanted: float) -> None:
    scores, positive = split(rows)
    curve = roc(scores, positive)
    enough = [score for score in set(scores) if counted(scores, positive, score).precision >= wanted - 1e-12]
    if not enough:
        with pytest.raises(ValueError, match="ask for less, or train on more"):
            threshold_for_precision(curve, wanted)
        return
    threshold = threshold_for_precision(curve, wanted)
    assert threshold in enough
    assert curve.at(threshold).recall == max(counted(scores, positive, score).recall for score in enough)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_no_less_than_the_kept_share_reaches_its_threshold(scores: list[int], share: float) -> None:
    values = np.array(scores, dtype=np.float64)
    threshold = threshold_for_kept_share(values, share)
    assert (values >= threshold).sum() >= share * len(values) - 1e-9
    assert (values > threshold).sum() < share * len(values)


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    generator = np.random.default_rng(1)
    positive = generator.random(5000) < 0.3
    curve = roc(generator.normal(size=5000) + positive, positive)
    thin = curve.thinned(100)
    assert len(thin.thresholds) <= 100
    assert (thin.recall[0], thin.recall[-1], thin.false_positive_rate[-1]) == (0, 1, 1)
    assert thin.auc == pytest.approx(curve.auc, abs=1e-3)


def test_one_class_alone_has_no_curve() -> None:
    with pytest.raises(ValueError, match="both classes"):
        roc(np.array([0.1, 0.2]), np.array([True, True]))
