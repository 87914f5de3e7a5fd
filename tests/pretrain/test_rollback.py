"""A loss spike is gone back from: outsized gradient, attention collapse and poison batch, injected into a training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint.curve import standing_curve
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.steps import StepReceipt, StepStore
from ray_jobs.pretrain.trainer import TrainingStopped
from tests.pretrain.harm import Harm, collapsed, harmed, not_a_number, outsized, poisoned
from tests.pretrain.ranks import finish, start
from tests.pretrain.test_saving import FailingStore
from tests.pretrain.test_trainer import stop_at

Jobs = Callable[..., TrainingJob]
AT = 50
"""The step at which the harm is done."""
BACK = {"action": "rollback", "window": 32, "lasting": 1, "rollback_steps": 5, "skip_before": 2, "skip_after": 3}
CHANGES: dict[str, Any] = {
    "steps": 80,
    "checkpoint_every": 10,
    "checkpoints_kept": 1,
    "log_every": 5,
    "spikes": BACK,
}
pytestmark = pytest.mark.usefixtures("one_rank")


def final(job: TrainingJob) -> StepReceipt:
    receipt = StepStore(job.store, job.path).of_step(job.spec.steps)
    assert receipt is not None
    return receipt


def losses(job: TrainingJob) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_curve(job.store, job.path, final(job))]


def train_poisoned(job: TrainingJob, batches: range = range(AT, AT + 2), **options: Any) -> None:
    with poisoned(batches):
        train_rank(job, **options)


def test_poison_batches_are_passed_over_as_if_they_had_never_been(job: Jobs) -> None:
    spiked, undisturbed = job("spiked", CHANGES), job("undisturbed", CHANGES)
    train_poisoned(spiked)
    train_rank(undisturbed)
    (spike,) = final(spiked).state["spikes"]["spikes"]
    assert (spike["step"], spike["kind"], spike["back_to"]) == (AT, "loss", 40)
    assert spike["skipped"] == [{"first": AT - 2, "count": 2 + 1 + 3}]
    curve = read_curve(spiked.store, spiked.path, final(spiked))
    assert [line["step"] for line in curve] == list(range(5, 81, 5))
    assert losses(spiked)[:9] == losses(undisturbed)[:9]  # up to the hole all is taken as it was, to the bit
    assert losses(spiked)[-1][1] == pytest.approx(losses(undisturbed)[-1][1], abs=0.15)
    assert len(final(spiked).state["segments"]) == 1  # it did not start again
    assert curve[-1]["spikes"] == 1 and final(spiked).state["next_sample"] == (80 + 6) * 8


def test_before_the_first_checkpoint_it_goes_back_to_the_seed(job: Jobs) -> None:
    early = {**CHANGES, "steps": 50, "checkpoint_every": 50, "spikes": {**BACK, "rollback_steps": 30}}
    spiked, undisturbed = job("spiked", early), job("undisturbed", early)
    train_poisoned(spiked, range(36, 37))
    train_rank(undisturbed)
    (spike,) = final(spiked).state["spikes"]["spikes"]
    assert (spike["step"], spike["back_to"]) == (36, 0)
    assert losses(spiked)[:6] == losses(undisturbed)[:6]


@pytest.mark.slow
def test_it_is_the_same_training_to_the_bit_however_it_is_cut_off(job: Jobs) -> None:
    whole = job("whole", CHANGES)
    train_poisoned(whole)
    for stop in (AT - 3, AT + 9, AT + 16):  # before the spike; after it is gone back from; once more
        cut = job(f"cut at {stop}", CHANGES)
        with pytest.raises(TrainingStopped):
            train_poisoned(cut, should_stop=stop_at(stop))
        train_poisoned(cut)
        assert losses(cut) == losses(whole)
        assert final(cut).state["spikes"] == final(whole).state["spikes"]
        sha = [[file.sha256 for file in final(one).files if not file.name.startswith(".")] for one in (cut, whole)]
        assert sha[0] == sha[1]


@pytest.mark.slow
def test_two_ranks_decide_as_one(job: Jobs, training: Callable[..., dict[str, Any]]) -> None:
    for status, output in finish(start(2, [{**training("two", CHANGES), "poison": [AT, AT + 2]}])):
        assert status == 0, output
    one, two = job("one", CHANGES), job("two", CHANGES)
    train_poisoned(one)
    told = [
        [(spike["step"], spike["back_to"], spike["skipped"]) for spike in final(each).state["spikes"]["spikes"]]
        for each in (one, two)
    ]
    assert told[0] == told[1] and len(told[0]) == 1
    for (step, loss), (other_step, other_loss) in zip(losses(one), losses(two), strict=True):
        assert step == other_step and loss == pytest.approx(other_loss, abs=0.03)  # rounding grows at so high a rate


@pytest.mark.parametrize(
    ("failing", "poison", "back_to"),
    [
        # The save of step 40 fails, and step 41 is saved instead: what stands before 40 is still there.
        (4, 54, 30),
        # The save of step 50, which is about to be gone back behind.
        (5, 50, 40),
    ],
)
def test_one_failed_save_costs_one_checkpoint(job: Jobs, failing: int, poison: int, back_to: int) -> None:
    once = job("once", CHANGES)
    store = FailingStore(Path(once.store.root), "put_file", lambda number: number == failing)
    failed = replace(once, store=store)
    train_poisoned(failed, range(poison, poison + 2))
    (spike,) = final(failed).state["spikes"]["spikes"]
    assert (spike["step"], spike["back_to"]) == (poison, back_to)


def test_record_only_goes_on_and_tells(job: Jobs) -> None:
    recorded = job("recorded", {**CHANGES, "spikes": {**BACK, "action": "record"}})
    train_poisoned(recorded)
    spikes = final(recorded).state["spikes"]["spikes"]
    assert (spikes[0]["step"], spikes[0]["back_to"], spikes[0]["skipped"]) == (AT, None, [])
    assert max(line["loss"] for line in read_curve(recorded.store, recorded.path, final(recorded))[1:]) > 5.5


def test_too_many_are_an_error_that_tells_them(job: Jobs) -> None:
    hopeless = job("hopeless", {**CHANGES, "spikes": {**BACK, "max_rollbacks": 2}})
    said = (
        r"3 loss spikes, more than spikes.max_rollbacks \(2\): step 50: loss .* back to step 40, past the batches 48 to"
    )
    with pytest.raises(ValueError, match=said):
        train_poisoned(hopeless, range(AT, 1000))
    assert standing_curve(hopeless.store, hopeless.path).lines[-1]["step"] == 45  # how it came to that


@pytest.mark.parametrize(
    ("harm", "kind"),
    [(outsized(1e10), "gradient norm"), (collapsed(100), ""), (not_a_number, "not a number")],
)
def test_what_harms_a_model_once_is_undone(job: Jobs, harm: Harm, kind: str) -> None:
    undisturbed = job("undisturbed", CHANGES)
    train_rank(undisturbed)
    assert final(undisturbed).state["spikes"]["spikes"] == []
    spoiled = job("spoiled", {**CHANGES, "attention_every": 5})
    with harmed(AT, harm):
        train_rank(spoiled)
    (spike,) = final(spoiled).state["spikes"]["spikes"]
    if kind:
        assert (spike["step"], spike["kind"], spike["back_to"]) == (AT, kind, 40)
    else:  # so small a model hardly attends, and takes some steps until its loss or gradient tells
        assert AT <= spike["step"] < AT + 10 and spike["back_to"] <= AT
    # Other data than the undisturbed training's, so not its loss to the bit.
    assert losses(spoiled)[-1][1] == pytest.approx(losses(undisturbed)[-1][1], abs=0.15)
    curve = read_curve(spoiled.store, spoiled.path, final(spoiled))
    assert all(len(line["attention_max_logit"]) == 2 and max(line["attention_max_logit"]) < 50 for line in curve)
