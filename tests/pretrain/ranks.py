"""Several ranks of training, each a process with torchrun's environment: `python -m tests.pretrain.ranks REQUEST`.

A request is a JSON list of trainings, which the ranks work through one after another (torch is imported once).
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from configs.base import Resources
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.file_store import FileStore
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import open_store
from ray_jobs.model.files import vocabulary_of
from ray_jobs.pretrain.launch import TrainingJob
from ray_jobs.pretrain.measured import measured

ROOT = Path(__file__).resolve().parents[2]


def job_of(
    store_url: str, inputs: dict[str, str], spec: dict[str, Any], name: str, held: bool = False, **resources: Any
) -> TrainingJob:
    """A training of the nodes with these keys, in the folder nodes/pretrain/<name>."""
    store = open_store(store_url)
    if held:
        assert isinstance(store, FileStore)
        store = HeldStore(store.root)
    tokens, tokenizer = (Checkpoint.open(store, node, inputs[node]) for node in ("tokens", "tokenizer"))
    checked = PretrainSpec.model_validate(spec)
    eval_sets = Checkpoint.open(store, "eval-sets", inputs["eval-sets"]) if "eval-sets" in inputs else None
    return TrainingJob(
        checked,
        tokens,
        vocabulary_of(tokenizer),
        store,
        NodePath("pretrain", name),
        f"job-{name}",
        Resources(**resources),
        measured(checked.evaluation, tokens, tokenizer, eval_sets) if checked.evaluation else None,
    )


class HeldStore(FileStore):
    """The last rank's first object of a checkpoint after the first one is never written; `held` then lies in the root.
    Only once: those who come after find `held` there."""

    def put_file(self, path: str, local: Path) -> None:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        held = self.root / "held"
        if rank == world - 1 and "/steps/" in path and any(self.root.rglob("receipts/steps/*")) and not held.exists():
            held.touch()
            time.sleep(600)
        super().put_file(path, local)


def start(
    world: int, request: list[dict[str, Any]], module: str = "tests.pretrain.ranks"
) -> list[subprocess.Popen[str]]:
    """The ranks, each the head of a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(request)],
            cwd=ROOT,
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in range(world)
    ]


def finish(ranks: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str]]:
    """Exit status and output of each rank; whatever still runs then is killed."""
    try:
        outputs = [rank.communicate(timeout=seconds)[0] for rank in ranks]
    finally:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, signal.SIGKILL)
                rank.wait()
    return [(rank.returncode, output) for rank, output in zip(ranks, outputs, strict=True)]


def main() -> int:
    import torch.distributed as dist

    from ray_jobs.pretrain.launch import sigterm_asks, train_rank
    from ray_jobs.pretrain.trainer import TrainingStopped
    from tests.pretrain.harm import poisoned

    dist.init_process_group("gloo")
    status = 0
    for training in json.loads(sys.argv[1]):
        try:
            stop_at = training.pop("stop_at", None)
            with sigterm_asks() as asked, poisoned(range(*training.pop("poison", [0]))):
                steps = itertools.count(1)
                train_rank(job_of(**training), should_stop=lambda: asked() or next(steps) == stop_at)  # noqa: B023
        except (ValueError, TrainingStopped) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            status = 0 if stop_at else 1
    dist.destroy_process_group()
    return status


if __name__ == "__main__":
    sys.exit(main())
