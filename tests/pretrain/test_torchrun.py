"""The node under torchrun, and its checkpoints on S3."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from ray_jobs.pretrain.__main__ import job_of
from ray_jobs.pretrain.curve import read_curve, segments_of
from ray_jobs.pretrain.launch import NO_PROGRESS, TrainingJob, train_here
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.conftest import SPEC

ROOT = Path(__file__).resolve().parents[2]


def published(store: Store, inputs: dict[str, Checkpoint], **changes: Any) -> tuple[NodeRequest, str]:
    """A request and its URL."""
    request = NodeRequest(
        node="pretrain",
        version=PretrainSpec.version,
        spec={**SPEC, **changes},
        inputs={slot: InputKey(node=upstream.node, key=upstream.key) for slot, upstream in inputs.items()},
        resources={"workers": 1},
    )
    store.put("nodes/pretrain/requests/by-hand.json", request.model_dump_json().encode())
    return request, store.url_of("nodes/pretrain/requests/by-hand.json")


def torchrun(url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "ray_jobs.pretrain", url]


def kill(launcher: subprocess.Popen[bytes]) -> None:
    """torchrun and its ranks at once, as when a machine is lost."""
    tasks = Path(f"/proc/{launcher.pid}/task").iterdir()
    ranks = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    for pid in [*ranks, launcher.pid]:
        os.kill(pid, signal.SIGKILL)
    launcher.wait()


def wait_for_checkpoint(steps: StepStore) -> None:
    deadline = time.monotonic() + 300
    while not steps.receipts():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_curve_is_that_of_one_rank(steps: StepStore, job: TrainingJob, world_sizes: list[int]) -> None:
    """And what trained the last of several sessions had the last of `world_sizes`."""
    final = steps.of_step(job.spec.steps)
    assert final is not None and final.world_size == world_sizes[-1]
    assert len(segments_of(final)) == len(world_sizes)
    alone = replace(job, path=NodePath("pretrain", "alone"))
    train_here(alone, NO_PROGRESS)
    receipt = StepStore(job.store, alone.path).of_step(job.spec.steps)
    assert receipt is not None
    lines = zip(read_curve(job.store, steps.path, final), read_curve(job.store, alone.path, receipt), strict=True)
    for ours, theirs in lines:
        assert ours["step"] == theirs["step"]
        # The order of sums: what it does to the last bits grows with the steps.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


@pytest.mark.slow
def test_killed_and_started_with_another_number_of_ranks_it_goes_on(
    store: Store, inputs: dict[str, Checkpoint]
) -> None:
    _, url = published(store, inputs, steps=60, checkpoint_every=10, log_every=10)
    job = job_of(url, 1)
    steps = StepStore(store, job.path)
    first = subprocess.Popen(torchrun(url, "--standalone", "--nproc-per-node", "2"), cwd=ROOT)
    wait_for_checkpoint(steps)
    kill(first)
    again = torchrun(url, "--standalone", "--nproc-per-node", "3")
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_curve_is_that_of_one_rank(steps, job, [2, 3])


@pytest.mark.slow
def test_what_torchrun_trained_the_node_publishes(
    store: Store, inputs: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    request, url = published(store, inputs)
    done = subprocess.run(
        torchrun(url, "--standalone", "--nproc-per-node", "2"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "12 of 12 steps" in done.stderr

    from ray_jobs.pretrain import job

    def trains_again(*_: object) -> None:
        raise AssertionError("the last checkpoint stands")

    monkeypatch.setattr(job, "train", trains_again)
    manifest = run_node(store, request)
    assert StepStore(store, manifest.path).receipts()[0].world_size == 2
    names = {file.name for file in manifest.outputs}
    assert {"model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl"} <= names
    metrics = next(file for file in manifest.outputs if file.name == "metrics.jsonl")
    lines = [json.loads(line) for line in (store.get(metrics.path) or b"").decode().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]


def test_without_torchrun_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-m", "ray_jobs.pretrain", "x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "start it with torchrun" in done.stderr
