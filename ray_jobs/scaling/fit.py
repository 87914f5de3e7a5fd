"""A scaling law from the losses of finished runs (Hoffmann et al. 2022, section D.2, their approach 3).

Their procedure as corrected by Besiroglu et al. 2024: residuals are summed, not averaged, as a mean over points makes
the objective so flat that the optimizer stops early.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.scaling import ScalingLaw

NUM_PARAMETERS = 5
DELTA = 1e-3
"""Of the Huber loss, on residuals of log L (Hoffmann et al. 2022, section D.2)."""
# Their grid of starts: a = log A, b = log B, e = log E, and the two exponents.
STARTS = tuple(
    itertools.product(
        (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
        (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
        (-1.0, -0.5, 0.0, 0.5, 1.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
    )
)
# L-BFGS runs from so many starts of the grid, those of the lowest objective.
NUM_STARTS = 20
# Resampled fits begin at the whole's result and at some other ends of its starts.
NUM_RESTARTS = 3
# Below this, too many resamples hold fewer distinct points than the law has parameters.
LEAST_FOR_BOOTSTRAP = 2 * NUM_PARAMETERS
# Budgets closer than this are one: sizes of real models do not meet a budget exactly.
SAME_BUDGET = 1.05


@dataclass(frozen=True)
class Point:
    """One finished run."""

    parameters: float
    tokens: float
    loss: float
    """In nats a token."""


@dataclass(frozen=True)
class Fit:
    """A fitted law and how sure it is."""

    law: ScalingLaw
    residual: float
    """Root mean square of log L's residuals."""
    intervals: dict[str, tuple[float, float]]
    """95% by percentiles of the bootstrap, of E, A, B, alpha, beta and size_exponent; empty without one."""
    num_points: int
    draws: tuple[ScalingLaw, ...] = ()
    """The laws of the bootstrap. Not validated: some may not fall with size or with tokens."""


def fit_law(points: Sequence[Point], bootstrap_samples: int = 200, seed: int = 0) -> Fit:
    """Minimises the Huber loss of log-sum-exp(a − α·log N, b − β·log D, e) − log L over the points.

    Args:
        points: at least five distinct ones, of more than one compute budget.
        bootstrap_samples: resamplings of points behind the intervals; with fewer than ten points there are none.
        seed: of the resampling.

    Raises:
        ValueError: the points do not determine a law.
    """
    check_points(points)
    measured = np.array([(point.parameters, point.tokens, point.loss) for point in points])
    logs = np.log(measured)
    ends = _ends(logs, _best_starts(logs))
    best = ends[0]
    law = _law(best)
    intervals: dict[str, tuple[float, float]] = {}
    draws: list[ScalingLaw] = []
    if bootstrap_samples and len(_distinct(points)) >= LEAST_FOR_BOOTSTRAP:
        draws = _bootstrap(logs, ends[:NUM_RESTARTS], bootstrap_samples, seed)
        for name in ("E", "A", "B", "alpha", "beta", "size_exponent"):
            low, high = np.percentile([getattr(draw, name) for draw in draws], [2.5, 97.5])
            intervals[name] = (float(low), float(high))
    residuals = _residuals(best, logs)[0]
    return Fit(law, float(np.sqrt(np.mean(residuals**2))), intervals, len(points), tuple(draws))


def check_points(points: Sequence[Point]) -> None:
    """Raises ValueError, saying what is missing, where the points cannot determine a law."""
    for point in points:
        values = (point.parameters, point.tokens, point.loss)
        if not all(np.isfinite(value) and value > 0 for value in values):
            raise ValueError(
                f"a run of {point.parameters:g} parameters and {point.tokens:g} tokens has a loss of {point.loss:g}: "
                "all three must be positive numbers; leave that run out, or train it again with a lower learning rate"
            )
    num_distinct = len(_distinct(points))
    if num_distinct < NUM_PARAMETERS:
        raise ValueError(
            f"{num_distinct} runs of distinct size and tokens do not determine the {NUM_PARAMETERS} constants of a "
            f"scaling law: give {NUM_PARAMETERS} or more, ten for intervals"
        )
    for name in ("parameters", "tokens"):
        if len({getattr(point, name) for point in points}) < 2:
            raise ValueError(f"all runs have the same number of {name}: vary it, by four times or more")
    budgets = [point.parameters * point.tokens for point in points]
    if max(budgets) / min(budgets) < SAME_BUDGET:
        raise ValueError(
            "all runs have the same compute budget (parameters × tokens), along which size and tokens cannot be told "
            "apart: add runs of another budget, four times as large or more"
        )


def _distinct(points: Sequence[Point]) -> set[tuple[float, float]]:
    return {(point.parameters, point.tokens) for point in points}


def _law(constants: np.ndarray) -> ScalingLaw:
    a, b, e, alpha, beta = (float(value) for value in constants)
    if alpha <= 0 or beta <= 0:
        raise ValueError(
            "the loss does not fall with size or does not fall with tokens over these runs: look at their loss curves, "
            "and add runs that are farther apart"
        )
    return ScalingLaw(E=np.exp(e), A=np.exp(a), B=np.exp(b), alpha=alpha, beta=beta)


def _residuals(constants: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted log L less the measured one, and the share of each of the three terms in the prediction.

    Args:
        constants: (..., 5) a, b, e, alpha, beta.
        logs: (points, 3) of parameters, tokens and loss.

    Returns:
        (..., points) and (..., points, 3).
    """
    a, b, e, alpha, beta = (constants[..., None, index] for index in range(NUM_PARAMETERS))
    terms = np.stack(np.broadcast_arrays(a - alpha * logs[:, 0], b - beta * logs[:, 1], e), axis=-1)
    top = terms.max(axis=-1, keepdims=True)
    powers = np.exp(terms - top)
    total = powers.sum(axis=-1, keepdims=True)
    return (top + np.log(total))[..., 0] - logs[:, 2], powers / total


def _objective(constants: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """The summed Huber loss over DELTA, and its gradient; so scaled, its slope is about 1 a point."""
    residuals, shares = _residuals(constants, logs)
    slopes = np.clip(residuals / DELTA, -1, 1)
    weighted = slopes[:, None] * shares
    by_term = weighted.sum(axis=0)
    gradient = [*by_term, -weighted[:, 0] @ logs[:, 0], -weighted[:, 1] @ logs[:, 1]]
    return float(_huber(residuals).sum()), np.array(gradient)


def _huber(residuals: np.ndarray) -> np.ndarray:
    size = np.abs(residuals)
    return np.where(size <= DELTA, size**2 / (2 * DELTA), size - DELTA / 2)


def _best_starts(logs: np.ndarray) -> np.ndarray:
    """(NUM_STARTS, 5): those of the grid with the lowest objective."""
    grid = np.array(STARTS)
    objectives = np.concatenate(
        [_huber(_residuals(part, logs)[0]).sum(axis=-1) for part in np.array_split(grid, len(grid) // 100)]
    )
    return grid[np.argsort(objectives, kind="stable")[:NUM_STARTS]]


def _ends(logs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(starts, 5): where L-BFGS comes to from each, the best first."""
    found = [_minimise(start, logs) for start in starts]
    return np.array([constants for _, constants in sorted(found, key=lambda end: end[0])])


def _minimise(start: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """L-BFGS, begun again from where it stopped until that gains nothing: Huber's kinks end its line search early."""
    from scipy.optimize import minimize

    value, constants = np.inf, start
    for _ in range(20):
        result = minimize(
            lambda at: _objective(at, logs),
            constants,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-10, "maxls": 50},
        )
        gained = value - result.fun
        if gained > 0:
            value, constants = float(result.fun), result.x
        if gained <= 1e-9 * value:
            break
    return value, constants


def _bootstrap(logs: np.ndarray, starts: np.ndarray, num_samples: int, seed: int) -> list[ScalingLaw]:
    """Laws of resampled points. A resample with fewer distinct points than a law has parameters is drawn anew."""
    random = np.random.default_rng(seed)
    laws: list[ScalingLaw] = []
    while len(laws) < num_samples:
        rows = logs[random.integers(len(logs), size=len(logs))]
        if len(np.unique(rows[:, :2], axis=0)) < NUM_PARAMETERS:
            continue
        # Not validated: a resample without a fall with size or tokens belongs in the interval.
        a, b, e, alpha, beta = _ends(rows, starts)[0]
        laws.append(ScalingLaw.model_construct(E=np.exp(e), A=np.exp(a), B=np.exp(b), alpha=alpha, beta=beta))
    return laws
