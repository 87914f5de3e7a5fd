"""What the runs of a study say together: the law, the best size of each budget, and a plan for larger ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from configs.scaling import ScalingLaw
from configs.study import ScalingSpec
from ray_jobs.scaling.fit import Fit, Point, fit_law
from ray_jobs.scaling.isoflop import PowerLaw, Valley, power_of, valley
from ray_jobs.scaling.runs import Run

NUM_CURVE_POINTS = 25
"""Of the best size over budgets, from the smallest to the largest planned."""
PLAN_FACTORS = (10, 100, 1000)
"""Of the largest budget, where none is asked for."""
MOST_EPOCHS = 4.0
"""To this many, repeated text is worth nearly as much as new text (Muennighoff et al. 2023, arXiv:2305.16264)."""
MOST_OFF_BUDGET = 0.05
MOST_UNSOUND = 0.05

Interval = tuple[float, float]


@dataclass(frozen=True)
class Best:
    """The best split of one budget by the law, with 95% intervals of the bootstrap where there is one."""

    flops: float
    parameters: float
    parameters_95: Interval | None
    tokens: float
    tokens_95: Interval | None
    loss: float
    loss_95: Interval | None
    parameters_by_parabolas: float | None
    """By the power law through the lowest points of the parabolas."""


@dataclass(frozen=True)
class Study:
    """The findings."""

    runs: list[Run]
    fit: Fit
    flops_per_parameter_token: float
    """C / (N·D) of the runs, their median: 6 and what attention adds."""
    valleys: list[Valley]
    """Of the budgets that have one."""
    power: PowerLaw | None
    """N_opt over C through the valleys; None where fewer than two lie between their sizes."""
    curve: list[Best]
    plan: list[Best]
    notes: list[str]
    """What a reader should know before trusting it."""

    def predicted(self, run: Run) -> float:
        return self.fit.law.loss(run.parameters, run.tokens)

    def law_json(self) -> dict[str, Any]:
        """The law as `plan-compute --fit` reads it, and all that goes with it."""
        return {
            "law": self.fit.law.model_dump(),
            "size_exponent": self.fit.law.size_exponent,
            "intervals_95": self.fit.intervals,
            "residual": self.fit.residual,
            "num_runs": self.fit.num_points,
            "flops_per_parameter_token": self.flops_per_parameter_token,
            "valleys": [asdict(each) for each in self.valleys],
            "power": None if self.power is None else asdict(self.power),
            "curve": [asdict(each) for each in self.curve],
            "notes": self.notes,
        }

    def points_json(self) -> list[dict[str, Any]]:
        return [{**asdict(run), "predicted_loss": self.predicted(run)} for run in self.runs]


def study_of(runs: Sequence[Run], spec: ScalingSpec) -> Study:
    """Fits the runs in both ways.

    Raises:
        ValueError: the runs determine no law.
    """
    points = [Point(run.parameters, run.tokens, run.loss) for run in runs]
    fit = fit_law(points, spec.bootstrap_samples, spec.seed)
    factor = median(run.flops / (run.parameters * run.tokens) for run in runs)
    notes = [*_notes_on_runs(runs), *_notes_on_fit(fit)]
    valleys = []
    for budget in sorted(spec.budgets):
        at = [run for run in runs if run.budget == budget]
        try:
            valleys.append(valley(budget, [run.parameters for run in at], [run.loss for run in at]))
        except ValueError as error:
            notes.append(str(error))
    notes += [
        f"budget {each.flops:g}: the lowest point of its parabola, at {each.parameters:.3g} parameters, lies outside "
        "its sizes, and is no basis for the power law: add sizes there"
        for each in valleys
        if not each.inside
    ]
    try:
        power = power_of(valleys)
    except ValueError as error:
        power = None
        notes.append(str(error))
    planned = spec.plan_budgets or tuple(max(spec.budgets) * by for by in PLAN_FACTORS)
    places = np.geomspace(min(spec.budgets), max(*spec.budgets, *planned), NUM_CURVE_POINTS)
    return Study(
        runs=list(runs),
        fit=fit,
        flops_per_parameter_token=factor,
        valleys=valleys,
        power=power,
        curve=[best_at(float(flops), fit, factor, power) for flops in places],
        plan=[best_at(flops, fit, factor, power) for flops in planned],
        notes=notes,
    )


def best_at(flops: float, fit: Fit, factor: float, power: PowerLaw | None) -> Best:
    """The least loss with factor·N·D = flops."""
    parameters, tokens = fit.law.optimum(flops, factor)

    def interval(value_of: Callable[[ScalingLaw, float, float], float]) -> Interval | None:
        values = [value_of(law, *law.optimum(flops, factor)) for law in sound_draws(fit)]
        if not values:
            return None
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    return Best(
        flops=flops,
        parameters=parameters,
        parameters_95=interval(lambda law, size, data: size),
        tokens=tokens,
        tokens_95=interval(lambda law, size, data: data),
        loss=fit.law.loss(parameters, tokens),
        loss_95=interval(lambda law, size, data: law.loss(size, data)),
        parameters_by_parabolas=power(flops) if power is not None else None,
    )


def sound_draws(fit: Fit) -> list[ScalingLaw]:
    """Those with a best size: the others do not fall with size, or with tokens."""
    return [law for law in fit.draws if law.alpha > 0 and law.beta > 0]


def _notes_on_runs(runs: Sequence[Run]) -> list[str]:
    notes = []
    repeated = [run for run in runs if run.epochs > MOST_EPOCHS]
    if repeated:
        most = max(repeated, key=lambda run: run.epochs)
        notes.append(
            f"{len(repeated)} of {len(runs)} runs repeat their text more than {MOST_EPOCHS:g} times ({most.name} "
            f"{most.epochs:.1f} times): their tokens are worth less than new ones, which favours larger models"
        )
    off = [run for run in runs if abs(math.log(run.flops / run.budget)) > MOST_OFF_BUDGET]
    if off:
        farthest = max(off, key=lambda run: abs(math.log(run.flops / run.budget)))
        notes.append(
            f"{len(off)} of {len(runs)} runs miss their budget by more than {MOST_OFF_BUDGET:.0%} ({farthest.name} "
            f"took {farthest.flops:.3g} FLOPs of {farthest.budget:.3g}), and their parabolas with it: give "
            "vocabulary_size"
        )
    return notes


def _notes_on_fit(fit: Fit) -> list[str]:
    if not fit.draws:
        return ["there are no intervals: they take ten runs and bootstrap_samples"]
    unsound = len(fit.draws) - len(sound_draws(fit))
    if unsound > MOST_UNSOUND * len(fit.draws):
        return [
            f"{unsound} of {len(fit.draws)} resamplings of the runs have no best size, and are left out of the "
            "intervals of sizes and tokens: these are too narrow; add runs"
        ]
    return []
