"""On real GPUs: Ray Train's workers and NCCL give what one CPU gives."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.pretrain.launch import TrainingJob, train_here, train_rank
from tests.pretrain.ranks import job_of
from tests.pretrain.test_ranks import assert_close, curve_of, weights_of

Training = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(GPUS == 0, reason="needs a GPU"),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def on_ray(training: dict[str, Any], happens: str = "nothing") -> str:
    request = json.dumps({"training": training, "happens": happens, "gpus": GPUS})
    command = [sys.executable, "-m", "tests.pretrain.ray_group", request]
    # A worker takes longer to reach its GPU than its place to be found.
    environment = {**os.environ, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"did not end in time: {(late.stdout or b'')[-3000:]!r} {(late.stderr or b'')[-2000:]!r}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("one_rank")
def test_workers_of_ray_train_on_gpus_are_one_cpu(training: Training) -> None:
    workers = math.gcd(GPUS, 8)
    said = on_ray(training("ray", workers=workers, gpus=1))
    assert "12 of 12 steps" in said
    on_gpus, on_cpu = job_of(**training("ray")), job_of(**training("cpu"))
    train_rank(on_cpu)
    assert_close(curve_of(on_gpus), curve_of(on_cpu))
    assert all(line["peak_memory_gb"] < 1 for line in curve_of(on_gpus))  # of the GPU's allocator, not of the process


def test_a_killed_worker_is_replaced_on_its_gpu(training: Training) -> None:
    workers = math.gcd(GPUS, 8)
    changes = {"steps": 1500, "checkpoint_every": 250, "log_every": 250}
    said = on_ray(training("killed", changes, workers=workers, gpus=1, infrastructure_retries=2), "kill")
    assert f"killed one of {workers} workers" in said and "1500 of 1500 steps" in said
    job: TrainingJob = job_of(**training("killed", changes))
    assert curve_of(job, 1500)[-1]["restarts"] == 1


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_a_resumed_training_is_the_uninterrupted_one(training: Training, dtype: str) -> None:
    """Bit for bit, as far as the GPU's own sums are: embedding's gradient may add in any order."""
    if dtype == "fp8":
        pytest.importorskip("torchao")
    changes = {"dtype": dtype, "compile": True}
    whole, parts = (job_of(**training(name, changes, gpus=1)) for name in ("whole", "parts"))
    train_here(whole, lambda *_, **__: None)
    for stop in (5, 99):
        _one_rank_until(parts, stop)
    assert_close(curve_of(parts), curve_of(whole))
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(parts)[name], tensor, rtol=1e-2, atol=1e-3)


def _one_rank_until(job: TrainingJob, stop: int) -> None:
    import torch.distributed as dist

    from ray_jobs.pretrain.trainer import TrainingStopped

    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    steps = iter(range(1, 100))
    try:
        train_rank(job, should_stop=lambda: next(steps) == stop)
    except TrainingStopped:
        pass
    finally:
        dist.destroy_process_group()
