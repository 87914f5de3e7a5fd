"""What a reader must know before trusting a study is said."""

import re
from dataclasses import replace

import pytest

from configs.scaling import ScalingLaw
from configs.study import ScalingSpec
from ray_jobs.scaling.fit import Fit
from ray_jobs.scaling.runs import Run
from ray_jobs.scaling.study import best_at, sound_draws, study_of

LAW = ScalingLaw(E=1.7, A=60.0, B=90.0, alpha=0.35, beta=0.33)
SPEC = ScalingSpec(budgets=(1e13, 4e13), bootstrap_samples=0)


def run_of(budget: float, shift: float, **changes: float) -> Run:
    parameters = round(LAW.optimum(budget)[0] * shift)
    tokens = round(budget / 6 / parameters)
    made = Run(
        name=f"{shift:g}-{budget:g}",
        budget=budget,
        parameters=parameters,
        tokens=tokens,
        flops=6.0 * parameters * tokens,
        loss=LAW.loss(parameters, tokens),
        training_loss=3.0,
        epochs=1.0,
        steps=100,
        learning_rate=1e-3,
    )
    return replace(made, **changes)


RUNS = [run_of(budget, shift) for budget in SPEC.budgets for shift in (0.3, 1.0, 3.0)]


def test_a_sound_study_has_no_note_but_that_it_has_no_intervals() -> None:
    study = study_of(RUNS, SPEC)
    assert study.notes == ["there are no intervals: they take ten runs and bootstrap_samples"]
    assert [best.flops for best in study.plan] == [4e14, 4e15, 4e16]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (replace(RUNS[0], epochs=9.0), "1 of 6 runs repeat their text more than 4 times .*9.0 times"),
        (replace(RUNS[0], flops=RUNS[0].flops * 1.2), "1 of 6 runs miss their budget by more than 5%"),
        (replace(RUNS[1], loss=RUNS[0].loss + 0.5), r"budget 1e\+13: the loss has no lowest point"),
    ],
)
def test_what_weakens_a_study_is_said(changed: Run, says: str) -> None:
    runs = [changed if (run.budget, run.parameters) == (changed.budget, changed.parameters) else run for run in RUNS]
    assert any(re.search(says, note) for note in study_of(runs, SPEC).notes)


def test_sizes_on_one_side_of_the_best_are_no_basis_for_the_power_law() -> None:
    runs = [*RUNS[:3], *(run_of(4e13, shift) for shift in (0.05, 0.1, 0.2))]
    study = study_of(runs, SPEC)
    assert study.power is None
    assert any("lies outside its sizes" in note for note in study.notes)


def test_a_resampling_without_a_best_size_widens_no_band() -> None:
    worse = ScalingLaw.model_construct(E=1.7, A=60.0, B=90.0, alpha=-0.1, beta=0.33)
    fit = Fit(LAW, 0.001, {}, 12, (LAW, worse, LAW))
    assert sound_draws(fit) == [LAW, LAW]
    best = best_at(1e15, fit, 6.0, None)
    assert best.parameters_95 == pytest.approx((best.parameters, best.parameters))
