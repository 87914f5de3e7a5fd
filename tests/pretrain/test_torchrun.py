"""The node under torchrun, and its checkpoints on S3."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.conftest import SPEC

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_what_torchrun_trained_the_node_publishes(
    store: Store, inputs: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = NodeRequest(
        node="pretrain",
        version=PretrainSpec.version,
        spec=SPEC,
        inputs={slot: InputKey(node=upstream.node, key=upstream.key) for slot, upstream in inputs.items()},
        resources={"workers": 1},
    )
    store.put("nodes/pretrain/requests/by-hand.json", request.model_dump_json().encode())
    url = store.url_of("nodes/pretrain/requests/by-hand.json")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, "-m", "ray_jobs.pretrain", url], cwd=ROOT, capture_output=True, text=True)
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
