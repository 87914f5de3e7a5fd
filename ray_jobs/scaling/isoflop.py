"""The best size at each compute budget, from runs alone (Hoffmann et al. 2022, section 3.2, their approach 2).

At one budget the loss over log N is close to a parabola; its lowest point is the budget's best size. The best sizes
grow as a power of the budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_RUNS = 3


@dataclass(frozen=True)
class Valley:
    """The parabola of one budget: loss = curvature·(ln N − ln N_opt)² + loss_opt."""

    flops: float
    parameters: float
    """N_opt."""
    loss: float
    """At N_opt, in nats a token."""
    curvature: float
    inside: bool
    """N_opt lies between the smallest and the largest size; outside, it is extrapolated and no basis for a power."""


@dataclass(frozen=True)
class PowerLaw:
    """y = factor · x^exponent."""

    factor: float
    exponent: float

    def __call__(self, x: float) -> float:
        return float(self.factor * x**self.exponent)


def valley(flops: float, parameters: Sequence[float], losses: Sequence[float]) -> Valley:
    """The least-squares parabola of one budget's runs.

    Args:
        flops: the budget.
        parameters: N of each run.
        losses: L of each run, in nats a token.

    Raises:
        ValueError: fewer than three sizes, a value that is no positive number, or losses without a lowest point.
    """
    if len(parameters) != len(losses):
        raise ValueError(f"{len(parameters)} sizes and {len(losses)} losses: give one loss for each size")
    values = np.array([flops, *parameters, *losses], dtype=float)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"budget {flops:g}: budget, sizes and losses must be positive numbers: leave that run out")
    if len(set(parameters)) < LEAST_RUNS:
        raise ValueError(
            f"budget {flops:g} has {len(set(parameters))} sizes, and a parabola takes {LEAST_RUNS}: add runs of others"
        )
    logs = np.log(np.asarray(parameters, dtype=float))
    # Centred, as powers of ln N ≈ 20 are nearly collinear.
    centre = logs.mean()
    curvature, slope, level = (float(value) for value in np.polyfit(logs - centre, losses, 2))
    if curvature <= 0:
        raise ValueError(
            f"budget {flops:g}: the loss has no lowest point over these sizes; add smaller and larger models"
        )
    lowest = -slope / (2 * curvature)
    best = float(np.exp(centre + lowest))
    inside = min(parameters) <= best <= max(parameters)
    return Valley(flops, best, level - slope**2 / (4 * curvature), curvature, inside)


def best_sizes(runs: Mapping[float, Sequence[tuple[float, float]]]) -> tuple[list[Valley], PowerLaw]:
    """The valley of each budget in rising order, and N_opt as a power of the budget through those that lie inside.

    Args:
        runs: budget -> (parameters, loss) of each of its runs.

    Raises:
        ValueError: as `valley` does, or fewer than two budgets have their best size between their sizes.
    """
    valleys = [
        valley(flops, [size for size, _ in runs[flops]], [loss for _, loss in runs[flops]]) for flops in sorted(runs)
    ]
    return valleys, power_of(valleys)


def power_of(valleys: Sequence[Valley]) -> PowerLaw:
    """N_opt as a power of the budget, by least squares of the logarithms over the valleys that lie inside.

    Raises:
        ValueError: there are fewer than two.
    """
    sound = [each for each in valleys if each.inside]
    if len(sound) < 2:
        raise ValueError(
            f"{len(sound)} of {len(valleys)} budgets have their best size between their smallest and largest model, "
            "and a power law takes two: widen the sizes, or add a budget"
        )
    logs = np.log([(each.flops, each.parameters) for each in sound])
    centre = logs.mean(axis=0)
    exponent = float(np.polyfit(logs[:, 0] - centre[0], logs[:, 1] - centre[1], 1)[0])
    return PowerLaw(float(np.exp(centre[1] - exponent * centre[0])), exponent)
