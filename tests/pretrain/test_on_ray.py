"""Ray Train gives what two ranks give, survives lost workers and machines, and does not repeat what cannot succeed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.conftest import SPEC
from tests.pretrain.ranks import finish, start

Training = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def train(training: dict[str, Any], happens: str = "nothing") -> str:
    request = json.dumps({"training": training, "happens": happens})
    command = [sys.executable, "-m", "tests.pretrain.ray_group", request]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(store: Store, name: str, step: int) -> list[tuple[int, float]]:
    receipt = StepStore(store, NodePath("pretrain", name)).of_step(step)
    assert receipt is not None and receipt.world_size == 2
    return [(line["step"], line["loss"]) for line in read_curve(store, NodePath("pretrain", name), receipt)]


def segments(store: Store, name: str, step: int) -> list[tuple[int, int]]:
    receipt = StepStore(store, NodePath("pretrain", name)).of_step(step)
    assert receipt is not None
    return [(segment["first"], segment["last"]) for segment in receipt.state["segments"]]


def test_a_killed_worker_is_replaced_and_the_curve_is_that_of_two_undisturbed_ranks(
    store: Store, training: Training
) -> None:
    changes = {"steps": 400, "checkpoint_every": 20, "log_every": 20}
    said = train(training("ray", changes, workers=2, infrastructure_retries=2), "kill")
    assert "killed one of 2 workers" in said
    assert "400 of 400 steps" in said
    for status, output in finish(start(2, [training("processes", changes)])):
        assert status == 0, output
    assert losses(store, "ray", 400) == losses(store, "processes", 400)
    receipt = StepStore(store, NodePath("pretrain", "ray")).of_step(400)
    assert receipt is not None and len({segment["session"] for segment in receipt.state["segments"]}) == 2


def test_a_worker_that_dies_in_mid_save_costs_that_checkpoint_only(store: Store, training: Training) -> None:
    changes = {"steps": 60, "checkpoint_every": 20, "log_every": 20, "checkpoints_kept": 9}
    said = train(training("ray", changes, held=True, workers=2, infrastructure_retries=2), "kill-saving")
    assert "killed one of 2 workers" in said and "60 of 60 steps" in said
    for status, output in finish(start(2, [training("processes", changes)])):
        assert status == 0, output
    assert segments(store, "ray", 60) == [(0, 20), (20, 60)]
    assert losses(store, "ray", 60) == losses(store, "processes", 60)
    # The half-written one of step 40 was written anew, by the session that trained it.
    newest = StepStore(store, NodePath("pretrain", "ray")).receipts()
    assert [receipt.step for receipt in newest] == [60, 40, 20]
    assert newest[0].session == newest[1].session != newest[2].session


def test_sigterm_leaves_a_last_checkpoint_from_which_the_next_run_goes_on(store: Store, training: Training) -> None:
    changes = {"steps": 600, "checkpoint_every": 20, "log_every": 20}
    said = train(training("stopped", changes, workers=2, infrastructure_retries=2), "stop")
    assert "NodeFailed: training stopped on request after step" in said
    reached = StepStore(store, NodePath("pretrain", "stopped")).receipts()[0].step
    assert 20 < reached < 600 and f"after step {reached};" in said
    # The same two ranks as plain processes: the one training goes on, the other was never stopped.
    for status, output in finish(start(2, [training("stopped", changes), training("processes", changes)])):
        assert status == 0, output
    assert losses(store, "stopped", 600) == losses(store, "processes", 600)


def test_when_a_machine_is_lost_the_other_goes_on_from_the_last_checkpoint(store: Store, training: Training) -> None:
    changes = {"steps": 300, "checkpoint_every": 20, "log_every": 20}
    said = train(training("lost", changes, workers=2, min_workers=1, infrastructure_retries=2), "lose")
    assert "300 of 300 steps" in said
    lost = NodePath("pretrain", "lost")
    final = StepStore(store, lost).of_step(300)
    assert final is not None and final.world_size == 1
    (first, reached), (also_reached, last) = segments(store, "lost", 300)
    assert (first, last) == (0, 300) and 20 <= reached == also_reached < 300
    # The losses of two ranks that nothing befell, but for the order of sums.
    for status, output in finish(start(2, [training("processes", changes)])):
        assert status == 0, output
    undisturbed = dict(losses(store, "processes", 300))
    for line in read_curve(store, lost, final):
        assert line["loss"] == pytest.approx(undisturbed[line["step"]], rel=1e-3), line["step"]


def test_when_a_machine_comes_back_the_ranks_save_and_go_on_with_it(store: Store, training: Training) -> None:
    changes = {"steps": 100_000, "checkpoint_every": 100_000, "checkpoints_kept": 9, "log_every": 20}
    said = train(training("back", changes, workers=2, min_workers=1, infrastructure_retries=2), "return")
    assert "NodeFailed: training stopped on request after step" in said
    # Nothing was due to be saved: one rank did before there were two, and two when they were stopped.
    newest, before = StepStore(store, NodePath("pretrain", "back")).receipts()
    assert (newest.world_size, before.world_size) == (2, 1)
    assert segments(store, "back", newest.step) == [(0, before.step), (before.step, newest.step)]


def test_all_ranks_ask_for_warnings_at_the_same_steps_and_save_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_jobs.pretrain import on_ray

    told = iter([None, None, "a node goes", "a node goes"])
    monkeypatch.setattr(on_ray.ray.train, "get_preemption_info", lambda: next(told), raising=False)
    warned = on_ray._warned_once()
    assert [step for step in range(1, 100) if warned()] == [30]
    assert next(told) == "a node goes"  # it is not asked again


def test_a_loss_that_is_no_number_is_an_error_of_the_user_and_is_not_tried_again(
    store: Store, training: Training
) -> None:
    steep = {"learning_rate": 1e18, "warmup_steps": 0, "clip_norm": 1e30}
    said = train(training("steep", {**SPEC, "optimizer": steep}, workers=2))
    assert said.count("ValueError: ") == 1
    assert "is not a finite number at step" in said
