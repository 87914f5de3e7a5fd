import pytest

from ray_jobs.dedup.bands import BandPlan, plan_bands


def test_the_default_plan_is_14_bands_of_8_rows() -> None:
    plan = plan_bands(0.8, 0.9, 112)
    assert plan == BandPlan(14, 8)
    assert plan.recall(0.8) == pytest.approx(0.9235, abs=5e-5)
    assert plan.recall(plan.midpoint) == pytest.approx(0.5)
    assert plan.midpoint == pytest.approx(0.6847, abs=5e-5)


@pytest.mark.parametrize("jaccard", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("recall", [0.5, 0.9, 0.99])
def test_a_plan_reaches_its_recall_and_one_more_row_would_not(jaccard: float, recall: float) -> None:
    plan = plan_bands(jaccard, recall, 128)
    assert plan.num_bands * plan.rows <= 128
    assert plan.recall(jaccard) >= recall
    assert BandPlan(128 // (plan.rows + 1), plan.rows + 1).recall(jaccard) < recall


def test_an_impossible_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"raise dedup\.num_permutations"):
        plan_bands(0.31, 0.9999999, 16)
