"""What every rank runs, whoever starts it: this process (`train_here`), Ray Train (`on_ray`), torchrun (`__main__`)."""

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.base import Resources
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store, StoreError
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.model.files import Vocabulary
from ray_jobs.pretrain.inputs import training_samples

if TYPE_CHECKING:
    import torch

    from ray_jobs.pretrain.measured import Measured

log = logging.getLogger("headrace")

Progress = Callable[..., None]
RANK_TIME = "rank-time"
NO_PROGRESS: Progress = lambda done, total, unit, **extra: None  # noqa: E731


@dataclass(frozen=True)
class TrainingJob:
    """What every rank must know. Picklable, and free of torch."""

    spec: PretrainSpec
    tokens: Checkpoint
    vocabulary: Vocabulary
    store: Store
    path: NodePath
    attempt: str
    """Of the job; each start of the ranks draws a session of its own."""
    resources: Resources
    measured: "Measured | None" = None
    """What the spec's evaluation scores."""

    @property
    def progress_path(self) -> str:
        return self.path.attempt(self.attempt, "progress.json")

    @property
    def stop_path(self) -> str:
        """Exists once the job was told to stop: ranks in other processes look for it."""
        return self.path.attempt(self.attempt, "stop.json")


def train_rank(
    job: TrainingJob,
    progress: Progress = NO_PROGRESS,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
) -> None:
    """One rank's training, inside a process group that the caller made. Raises what `trainer.train` raises."""
    import secrets

    import torch
    import torch.distributed as dist

    from ray_jobs.cluster.output import MetricsLog
    from ray_jobs.pretrain.evaluation import Evaluation
    from ray_jobs.pretrain.steps import StepStore
    from ray_jobs.pretrain.trainer import train

    torch.set_num_threads(threads_of(job.resources))
    rank = dist.get_rank()
    session = f"{job.attempt}-{secrets.token_hex(3)}"
    curve = MetricsLog(job.store, job.path, session) if rank == 0 else None
    device, evaluation = device_of_rank(job.resources), {}
    if job.measured is not None:
        at_once = micro_batch_of(job) or max(1, job.spec.global_batch // dist.get_world_size())
        evaluation["evaluate"] = Evaluation(job.spec, job.measured, job.vocabulary.eos_id, device, at_once)
    try:
        train(
            job.spec,
            job.vocabulary.num_tokens,
            training_samples(job.tokens, job.spec, job.resources),
            StepStore(job.store, job.path),
            device,
            session=session,
            curve=curve,
            micro_batch=micro_batch_of(job),
            shard_ranks=shard_ranks_of(job, dist.get_world_size()),
            progress=progress,
            should_save=should_save,
            should_stop=should_stop,
            **evaluation,
        )
    finally:
        if dist.get_world_size() > 1:  # a process of its own, whose time the job cannot see
            spent = json.dumps({"cpu_seconds": time.process_time()})
            try:
                job.store.put(job.path.attempt(session, f"{RANK_TIME}-{rank:05d}.json"), spent.encode())
            except StoreError as error:  # training's own error, if there is one, says more
                log.warning("the time of rank %d is not counted: %s", rank, error)


def cpu_seconds_of_ranks(store: Store, path: NodePath) -> float:
    """What the ranks of all sessions took, those apart that were killed."""
    entries = store.list(f"{path.root}/attempts/")
    spent = [entry.path for entry in entries if entry.path.rpartition("/")[2].startswith(RANK_TIME)]
    return sum(json.loads(data)["cpu_seconds"] for data in store.get_many(spent) if data is not None)


def micro_batch_of(job: TrainingJob) -> int | None:
    """Sequences at once. Ranks that go on without others take on their sequences, but no more of them at a time: they
    would not fit the memory."""
    if job.resources.micro_batch is None and job.resources.min_workers is not None:
        return math.ceil(job.spec.global_batch / job.resources.workers)
    return job.resources.micro_batch


def shard_ranks_of(job: TrainingJob, world: int) -> int | None:
    """Ranks that share a copy. Where machines are lost and those left make no whole number of copies, they share one
    among all."""
    shard_ranks = job.resources.shard_ranks
    if shard_ranks is not None and job.resources.min_workers is not None and world % shard_ranks:
        return None
    return shard_ranks


def threads_of(resources: Resources) -> int:
    """torch's threads in one rank. On a CPU their number changes the order of some sums, and so the last bits."""
    return max(1, int(resources.cpus))


def device_of_rank(resources: Resources) -> "torch.device":
    """The rank's GPU where the job has GPUs, by LOCAL_RANK as torchrun and Ray Train set it; else the CPU."""
    import torch

    if not resources.gpus:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def train_here(job: TrainingJob, progress: Progress) -> None:
    """A single rank in this process. SIGTERM saves a checkpoint first, and raises NodeFailed."""
    import torch.distributed as dist

    from ray_jobs.pretrain.trainer import TrainingStopped

    dist.init_process_group(backend_of(job.resources), store=dist.HashStore(), rank=0, world_size=1)
    try:
        with sigterm_asks() as asked:
            train_rank(job, progress, asked)
    except TrainingStopped as stopped:
        raise NodeFailed(str(stopped)) from None
    finally:
        dist.destroy_process_group()


def backend_of(resources: Resources) -> str:
    return "nccl" if resources.gpus else "gloo"


@contextmanager
def sigterm_asks() -> Iterator[Callable[[], bool]]:
    """While this lasts, SIGTERM only makes the yielded function true. Off the main thread, which alone gets signals, it
    keeps its meaning."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
