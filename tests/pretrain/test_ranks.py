"""Two ranks as processes of their own, on gloo."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.launch import TrainingJob, shard_ranks_of, train_rank
from ray_jobs.pretrain.steps import StepStore
from ray_jobs.pretrain.tensors import load_step, read_tensors
from ray_jobs.pretrain.trainer import build, checkpoint_tensors
from tests.pretrain.ranks import finish, start

Jobs = Callable[..., TrainingJob]
Training = Callable[..., dict[str, Any]]


def curve_of(job: TrainingJob, step: int = 12) -> list[dict[str, Any]]:
    receipt = StepStore(job.store, job.path).of_step(step)
    assert receipt is not None
    return read_curve(job.store, job.path, receipt)


def weights_of(job: TrainingJob, step: int = 12) -> dict[str, torch.Tensor]:
    steps = StepStore(job.store, job.path)
    receipt = steps.of_step(step)
    assert receipt is not None
    return read_tensors(steps, receipt, "")


def assert_close(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    for ours, theirs in zip(first, second, strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def run_ranks(*trainings: dict[str, Any], world: int = 2) -> None:
    for status, output in finish(start(world, list(trainings))):
        assert status == 0, output


@pytest.mark.slow
@pytest.mark.usefixtures("one_rank")
def test_two_ranks_are_one_and_go_on_as_one(job: Jobs, training: Training) -> None:
    # One start of two ranks: a whole training, one in micro-batches, and one that stops at step 8.
    run_ranks(training("two"), training("micro", micro_batch=3), {**training("parts"), "stop_at": 8})
    one, two, micro, parts = job("one"), job("two"), job("micro"), job("parts")
    train_rank(one)
    assert_close(curve_of(two), curve_of(one))
    assert_close(curve_of(micro), curve_of(one))
    # One rank loads what two stored exactly …
    stored = StepStore(parts.store, parts.path).receipts()[0]
    assert (stored.step, stored.world_size) == (8, 2)
    model, optimizer = build(parts.spec, parts.vocabulary.num_tokens, torch.device("cpu"))
    tensors = checkpoint_tensors(model, optimizer)
    with torch.no_grad():
        load_step(StepStore(parts.store, parts.path), stored, tensors)
    for name, tensor in weights_of(parts, 8).items():
        assert torch.equal(tensor, tensors[name].to_local()), name
    # … and goes on at the very next sample.
    train_rank(parts)
    assert [line["samples"] for line in curve_of(parts)] == [24, 48, 72, 96]
    assert_close(curve_of(parts), curve_of(two))


@pytest.mark.slow
@pytest.mark.usefixtures("one_rank")
def test_what_ranks_and_accumulation_change_of_a_gradient_is_rounding_without_a_trend(
    job: Jobs, training: Training
) -> None:
    """AdamW's first moment after one step is the clipped mean gradient times 1 − β₁."""
    changes = {"steps": 1, "optimizer": {"warmup_steps": 0}, "log_every": 1}
    run_ranks(training("two", changes), training("two by one", changes, micro_batch=1))
    one, parts = job("one", changes), job("parts", changes, micro_batch=1)
    train_rank(one)
    train_rank(parts)

    def gradient(of: TrainingJob) -> torch.Tensor:
        moments = [tensor for name, tensor in sorted(weights_of(of, 1).items()) if name.startswith("exp_avg.")]
        return torch.cat([tensor.double().flatten() for tensor in moments])

    whole = gradient(one)
    for other in (parts, job("two", changes), job("two by one", changes)):
        residual = gradient(other) - whole
        assert 0 < residual.norm() < 1e-5 * whole.norm()
        # Neither longer nor shorter, as it would be by a wrong count of tokens or ranks, nor shifted.
        assert abs(residual @ whole) < 1e-6 * (whole @ whole)
        used = residual[residual != 0]
        assert abs(used.mean()) < 5 * used.std() / len(used) ** 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("one_rank")
def test_two_copies_of_two_shards_are_one_rank_and_go_on_as_one(job: Jobs, training: Training) -> None:
    run_ranks(
        training("copies", shard_ranks=2), {**training("parts", shard_ranks=2, micro_batch=1), "stop_at": 8}, world=4
    )
    one, copies, parts = job("one"), job("copies"), job("parts")
    train_rank(one)
    assert_close(curve_of(copies), curve_of(one))
    stored = StepStore(parts.store, parts.path).receipts()[0]
    assert (stored.step, stored.world_size) == (8, 4)
    # A copy is written once.
    whole = StepStore(one.store, one.path).receipts()[0]
    assert sum(file.bytes for file in stored.files) < 1.2 * sum(file.bytes for file in whole.files)
    train_rank(parts)
    assert_close(curve_of(parts), curve_of(one))


@pytest.mark.usefixtures("one_rank")
def test_ranks_that_make_no_whole_number_of_copies_are_refused(job: Jobs) -> None:
    with pytest.raises(ValueError, match="1 ranks cannot be split into groups of 2: change"):
        train_rank(job("odd", shard_ranks=2))


@pytest.mark.slow
@pytest.mark.usefixtures("one_rank")
def test_three_ranks_share_a_batch_of_eight_and_go_on_from_two(job: Jobs, training: Training) -> None:
    packed = {"packing": "best-fit"}
    run_ranks({**training("grown"), "stop_at": 8})
    three = [training("three"), training("micro", micro_batch=1), training("packed", packed), training("grown")]
    run_ranks(*three, world=3)
    one, one_packed = job("one"), job("one packed", packed)
    train_rank(one)
    train_rank(one_packed)
    assert_close(curve_of(job("three")), curve_of(one))
    assert_close(curve_of(job("micro")), curve_of(one))
    assert_close(curve_of(job("packed", packed)), curve_of(one_packed))
    grown = job("grown")
    assert_close(curve_of(grown), curve_of(one))
    assert [line["samples"] for line in curve_of(grown)] == [24, 48, 72, 96]
    assert [receipt.world_size for receipt in StepStore(grown.store, grown.path).receipts()] == [3, 2]
    # Which weights they come to: an order of sums more than loss and norm tell.
    ones = weights_of(one)
    for name, tensor in weights_of(grown).items():
        assert torch.allclose(tensor, ones[name], atol=2e-3), name


def test_machines_that_are_left_share_one_copy_where_they_make_no_whole_number_of_copies(job: Jobs) -> None:
    elastic, fixed = job("any", workers=4, min_workers=1, shard_ranks=2), job("any", workers=4, shard_ranks=2)
    assert [shard_ranks_of(elastic, world) for world in (4, 3, 2, 1)] == [2, None, 2, None]
    assert shard_ranks_of(fixed, 3) == 2


@pytest.mark.usefixtures("one_rank")
def test_initial_weights_do_not_depend_on_the_number_of_ranks(job: Jobs) -> None:
    spec = job("any").spec
    model, _ = build(spec, 512, torch.device("cpu"))
    initialise(model.model, seed=7)
    whole = empty_model(transformers_config(spec.model, 512))
    materialise(whole, torch.device("cpu"))
    initialise(whole, seed=7)
    sharded = dict(model.model.named_parameters())
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, sharded[name].full_tensor()), name


@pytest.mark.slow
def test_after_kill_9_of_a_rank_the_same_command_gives_the_uninterrupted_result(job: Jobs, training: Training) -> None:
    changes = {"steps": 200, "checkpoint_every": 20, "log_every": 20}
    killed = job("killed", changes)
    steps = StepStore(killed.store, killed.path)
    ranks = start(2, [training("killed", changes)])
    deadline = time.monotonic() + 60
    while not steps.receipts() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(ranks[1].pid, signal.SIGKILL)
    (survivor, output), (status, _) = finish(ranks)
    assert status == -signal.SIGKILL
    assert survivor != 0, output  # the other rank's collective fails: it does not go on alone
    reached = steps.receipts()[0].step
    assert 20 <= reached < 200
    # The same command, and beside it a training that nothing interrupts.
    run_ranks(training("killed", changes), training("whole", changes))
    whole = job("whole", changes)
    assert [(line["step"], line["loss"]) for line in curve_of(killed, 200)] == [
        (line["step"], line["loss"]) for line in curve_of(whole, 200)
    ]
    theirs = weights_of(whole, 200)
    for name, tensor in weights_of(killed, 200).items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.slow
def test_sigterm_to_one_rank_saves_a_checkpoint_on_all_and_ends_with_an_error(job: Jobs, training: Training) -> None:
    changes = {"steps": 100_000, "checkpoint_every": 100_000}
    stopped = job("stopped", changes)
    ranks = start(2, [training("stopped", changes)])
    deadline = time.monotonic() + 60
    prefix = f"{stopped.path.root}/attempts/"
    while not any(stopped.store.list(prefix)) and time.monotonic() < deadline:  # the first lines of the curve
        time.sleep(0.05)
    os.kill(ranks[1].pid, signal.SIGTERM)
    for status, output in finish(ranks):
        assert status == 1, output
        assert "TrainingStopped: training stopped on request after step" in output
    receipt = StepStore(stopped.store, stopped.path).receipts()[0]
    assert receipt.world_size == 2 and 0 < receipt.step < 100_000
