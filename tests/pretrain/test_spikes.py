"""What is a spike, which data are passed over, and that training goes on as if they had not been there."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.pretrain import SpikeSpec
from ray_jobs.pretrain.spikes import (
    LEAST_HISTORY,
    Hole,
    Spike,
    SpikeState,
    Window,
    batch_of,
    batches_between,
    hole_of,
    newest_target,
)

SPEC = SpikeSpec(lasting=3)


def noisy(num: int, seed: int = 0) -> list[tuple[float, float]]:
    """Losses that fall slowly, with noise of 2 %, and norms with a long tail."""
    random = np.random.default_rng(seed)
    return [
        (4 * (1 + step / 50) ** -0.2 * (1 + 0.02 * random.standard_normal()), float(random.lognormal(0, 0.4)))
        for step in range(num)
    ]


def spikes_of(values: list[tuple[float, float]], spec: SpikeSpec = SPEC) -> list[Spike]:
    window = Window()
    found = [window.add(spec, step, *value) for step, value in enumerate(values)]
    return [spike for spike in found if spike is not None]


@pytest.mark.parametrize("seed", range(5))
def test_an_undisturbed_training_has_no_spike(seed: int) -> None:
    assert spikes_of(noisy(5000, seed)) == []


def test_a_rise_that_lasts_is_one_spike_with_its_first_step() -> None:
    values = noisy(600)
    for step in range(400, 430):
        values[step] = (values[step][0] + 1.5, values[step][1])
    (spike,) = spikes_of(values)
    assert (spike.step, spike.found, spike.kind) == (400, 402, "loss")
    assert spike.value == values[400][0]
    assert spike.median == np.median([loss for loss, _ in values[400 - SPEC.window : 400]])


def test_one_odd_batch_is_none_and_two_rises_are_two() -> None:
    values = noisy(900)
    for step in (300, 500, 501, 502, 700, 701, 702):
        values[step] = (9.0, values[step][1])
    assert [spike.step for spike in spikes_of(values)] == [500, 700]


def test_a_gradient_norm_alone_is_a_spike() -> None:
    values = noisy(600)
    for step in (400, 401, 402):
        values[step] = (values[step][0], 500.0)
    (spike,) = spikes_of(values)
    assert (spike.step, spike.kind, spike.value) == (400, "gradient norm", 500.0)


@pytest.mark.parametrize("value", [(math.nan, 1.0), (3.0, math.inf)])
def test_a_step_that_is_no_number_is_one_at_once_even_in_the_beginning(value: tuple[float, float]) -> None:
    (spike,) = spikes_of([*noisy(5), value])
    assert (spike.step, spike.found, spike.kind, spike.value) == (5, 5, "not a number", None)
    assert "gone" not in str(spike) and "no number" in str(spike)


def test_the_steep_first_steps_are_none() -> None:
    assert spikes_of([(100.0 if step == LEAST_HISTORY - 1 else 10.0, 1.0) for step in range(40)]) == []


def test_a_resumed_window_judges_as_the_uninterrupted_one() -> None:
    values = noisy(300)
    for step in range(250, 260):
        values[step] = (9.0, 1.0)
    state = SpikeState()
    for step, value in enumerate(values[:251]):
        assert state.window.add(SPEC, step, *value) is None
    again = SpikeState.of_state(json.loads(json.dumps(state.to_state())))
    assert again == state
    assert [again.window.add(SPEC, step, *values[step]) for step in (251, 252)] == [None, spikes_of(values)[0]]


def test_batches_in_holes_are_passed_over_and_no_other() -> None:
    assert list(batches_between(0, 6, [])) == [0, 1, 2, 3, 4, 5]
    assert list(batches_between(0, 6, [Hole(2, 3)])) == [0, 1, 5, 6, 7, 8]
    assert list(batches_between(0, 6, [Hole(0, 1), Hole(3, 2)])) == [1, 2, 5, 6, 7, 8]
    assert batch_of(10, [Hole(2, 3)]) == 13


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=6))
def test_every_batch_outside_of_the_holes_is_trained_on_once(holes: list[tuple[int, int]]) -> None:
    state = SpikeState(spikes=[Spike(0, 0, "loss", 1.0, 1.0, 0, (Hole(first, count),)) for first, count in holes])
    skipped = {batch for first, count in holes for batch in range(first, first + count)}
    wanted = [batch for batch in range(200) if batch not in skipped][:100]
    assert list(batches_between(0, 100, state.holes)) == wanted


def test_training_goes_back_far_enough_to_a_checkpoint_by_plan_and_past_the_spike() -> None:
    spec = SpikeSpec(rollback_steps=100, skip_before=30, skip_after=20)
    spike = Spike(457, 459, "loss", 9.0, 3.0)
    assert newest_target(spec, spike, checkpoint_every=100) == 300
    assert newest_target(spec, Spike(90, 92, "loss", 9.0, 3.0), checkpoint_every=100) == 0
    hole = hole_of(spec, spike, 300, [])
    assert hole == Hole(427, 459 + 20 - 427 + 1)
    # Before the spike all is trained on again as it was; then come the data behind the hole.
    assert list(batches_between(425, 429, [hole])) == [425, 426, 480, 481]
    # A spike behind a hole: its batches are later than its steps.
    second = hole_of(spec, Spike(440, 442, "loss", 9.0, 3.0), 400, [hole])
    assert second == Hole(batch_of(410, [hole]), 442 + 53 + 20 - 410 + 1)
