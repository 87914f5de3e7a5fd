"""A law is found again from points made of it, and points that determine none are refused."""

import itertools

import numpy as np
import pytest

from configs.scaling import PUBLISHED, ScalingLaw
from ray_jobs.scaling import fit
from ray_jobs.scaling.fit import Point, fit_law

TRUE = PUBLISHED["besiroglu-2024"]
SIZES, RATIOS = (4e7, 1.5e8, 6e8, 2.4e9, 1e10), (3, 10, 30, 100)


def points_of(law: ScalingLaw, noise: float = 0.0, seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)
    return [
        Point(size, size * ratio, law.loss(size, size * ratio) * float(np.exp(random.normal(0, noise))))
        for size, ratio in itertools.product(SIZES, RATIOS)
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_exact_points_give_their_law_back(name: str) -> None:
    found = fit_law(points_of(PUBLISHED[name]), bootstrap_samples=0)
    for field in ScalingLaw.model_fields:
        assert getattr(found.law, field) == pytest.approx(getattr(PUBLISHED[name], field), rel=2e-2), field
    assert found.residual < 1e-5
    assert found.intervals == {}


def test_noisy_points_give_intervals_that_hold_the_truth() -> None:
    found = fit_law(points_of(TRUE, noise=0.003), bootstrap_samples=100)
    for field in ("E", "A", "B", "alpha", "beta", "size_exponent"):
        low, high = found.intervals[field]
        assert low < getattr(TRUE, field) < high, field
    low, high = found.intervals["alpha"]
    assert 0.005 < high - low < 0.2
    assert found.residual == pytest.approx(0.003, rel=0.5)


def test_one_wild_run_hardly_moves_the_law() -> None:
    points = points_of(TRUE, noise=0.001)
    wild = [*points[:7], Point(points[7].parameters, points[7].tokens, 3 * points[7].loss), *points[8:]]
    calm, shaken = (fit_law(each, bootstrap_samples=0).law for each in (points, wild))
    assert shaken.alpha == pytest.approx(calm.alpha, rel=0.1)
    assert shaken.loss(7e10, 1.4e12) == pytest.approx(calm.loss(7e10, 1.4e12), rel=0.01)


def test_the_gradient_is_that_of_the_objective() -> None:
    from scipy.optimize import approx_fprime

    logs = np.log([(point.parameters, point.tokens, point.loss) for point in points_of(TRUE, noise=0.01)])
    at = np.array([6.0, 7.5, 0.55, 0.34, 0.36])
    slow = approx_fprime(at, lambda constants: fit._objective(constants, logs)[0], 1e-7)
    assert fit._objective(at, logs)[1] == pytest.approx(slow, rel=1e-3)


def test_no_start_of_a_spread_over_the_grid_finds_a_lower_objective_than_the_chosen_ones() -> None:
    """Every 97th: a number without a factor in common with the grid's sides, so that it meets each value of each. All
    4,500 take 10 minutes (the test below)."""
    logs = np.log([(point.parameters, point.tokens, point.loss) for point in points_of(TRUE, noise=0.005)])
    best = fit._objective(fit._ends(logs, fit._best_starts(logs))[0], logs)[0]
    every = np.array(fit.STARTS)[::97]
    assert best <= min(fit._minimise(start, logs)[0] for start in every) * (1 + 1e-4)


def test_the_same_seed_gives_the_same_intervals() -> None:
    points = points_of(TRUE, noise=0.01)
    assert fit_law(points, bootstrap_samples=5, seed=3) == fit_law(points, bootstrap_samples=5, seed=3)


def test_few_points_have_a_law_without_intervals() -> None:
    assert fit_law(points_of(TRUE)[:16:2], bootstrap_samples=5).intervals == {}


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([], "0 runs of distinct size"),
        (points_of(TRUE)[:4], "4 runs of distinct size"),
        (points_of(TRUE)[:4] * 3, "4 runs of distinct size"),
        ([Point(size, 1e18 / size, 3.0) for size in (1e7, 2e7, 4e7, 8e7, 16e7, 32e7)], "same compute budget"),
        ([Point(1e8, 1e9 * ratio, 3.0) for ratio in range(1, 9)], "same number of parameters"),
        ([Point(1e8 * ratio, 1e9, 3.0) for ratio in range(1, 9)], "same number of tokens"),
        ([*points_of(TRUE), Point(1e8, 1e9, -1.0)], "must be positive numbers"),
        ([*points_of(TRUE), Point(-1e8, 1e9, 3.0)], "must be positive numbers"),
        ([*points_of(TRUE), Point(1e8, 1e9, float("nan"))], "must be positive numbers"),
    ],
)
def test_points_that_determine_no_law_are_refused(points: list[Point], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit_law(points)


def test_losses_that_rise_with_size_are_refused() -> None:
    rising = [Point(point.parameters, point.tokens, 2 * point.parameters**0.05) for point in points_of(TRUE)]
    with pytest.raises(ValueError, match="does not fall"):
        fit_law(rising, bootstrap_samples=0)
