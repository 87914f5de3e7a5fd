"""Parabolas over log N give known best sizes back, and agree with the law that made the runs."""

import numpy as np
import pytest

from configs.scaling import PUBLISHED
from ray_jobs.scaling.isoflop import best_sizes, valley

LAW = PUBLISHED["besiroglu-2024"]
BUDGETS = (1e19, 1e20, 1e21, 1e22)


def runs_at(flops: float, factors: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0)) -> list[tuple[float, float]]:
    best, _ = LAW.optimum(flops)
    return [(best * factor, LAW.loss(best * factor, flops / 6 / (best * factor))) for factor in factors]


def test_a_parabola_gives_its_lowest_point_back() -> None:
    sizes = [1e8, 2e8, 5e8, 9e8]
    found = valley(1e20, sizes, [0.07 * (np.log(size) - np.log(3e8)) ** 2 + 2.5 for size in sizes])
    assert found.parameters == pytest.approx(3e8)
    assert found.loss == pytest.approx(2.5)
    assert found.curvature == pytest.approx(0.07)
    assert found.inside


def test_runs_of_a_law_give_its_best_sizes_and_their_exponent() -> None:
    valleys, power = best_sizes({flops: runs_at(flops) for flops in reversed(BUDGETS)})
    assert [each.flops for each in valleys] == list(BUDGETS)
    for each in valleys:
        assert each.parameters == pytest.approx(LAW.optimum(each.flops)[0], rel=0.02)
    assert power.exponent == pytest.approx(LAW.size_exponent, abs=0.003)
    assert power(5.76e23) == pytest.approx(LAW.optimum(5.76e23)[0], rel=0.05)


def test_a_best_size_beyond_the_models_is_marked_and_left_out_of_the_power() -> None:
    runs = {flops: runs_at(flops) for flops in BUDGETS[:3]} | {BUDGETS[3]: runs_at(BUDGETS[3], (0.1, 0.2, 0.3))}
    valleys, power = best_sizes(runs)
    assert [each.inside for each in valleys] == [True, True, True, False]
    assert power == best_sizes({flops: runs_at(flops) for flops in BUDGETS[:3]})[1]


@pytest.mark.parametrize(
    ("sizes", "losses", "says"),
    [
        ([1e8, 2e8], [3.0, 2.9], "has 2 sizes"),
        ([1e8, 1e8, 2e8], [3.0, 3.0, 2.9], "has 2 sizes"),
        ([1e8, 2e8, 4e8], [3.0, 3.1, 3.0], "no lowest point"),
        ([1e8, 2e8, -4e8], [3.0, 2.9, 3.0], "positive numbers"),
        ([1e8, 2e8, 4e8], [3.0, float("nan"), 3.0], "positive numbers"),
        ([1e8, 2e8, 4e8], [3.0, 2.9], "one loss for each size"),
    ],
)
def test_runs_without_a_valley_are_refused(sizes: list[float], losses: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        valley(1e20, sizes, losses)


def test_one_budget_has_no_power() -> None:
    with pytest.raises(ValueError, match="a power law takes two"):
        best_sizes({1e20: runs_at(1e20)})
