"""Starting the ranks: in this process, by Ray Train, or (see `__main__`) by torchrun. All run `train_rank`."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configs.base import Resources
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.model.files import Vocabulary
from ray_jobs.pretrain.inputs import training_samples

if TYPE_CHECKING:
    import torch

log = logging.getLogger("headrace")

Progress = Callable[..., None]
PROGRESS_SECONDS = 2.0
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

    @property
    def progress_path(self) -> str:
        return self.path.attempt(self.attempt, "progress.json")


def train_rank(
    job: TrainingJob, progress: Progress = NO_PROGRESS, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """One rank's training, inside a process group that the caller made. Raises what `trainer.train` raises."""
    import secrets

    import torch
    import torch.distributed as dist

    from ray_jobs.cluster.output import MetricsLog
    from ray_jobs.pretrain.steps import StepStore
    from ray_jobs.pretrain.trainer import train

    torch.set_num_threads(threads_of(job.resources))
    rank = dist.get_rank()
    session = f"{job.attempt}-{secrets.token_hex(3)}"
    curve = MetricsLog(job.store, job.path, session) if rank == 0 else None
    train(
        job.spec,
        job.vocabulary.num_tokens,
        training_samples(job.tokens, job.spec),
        StepStore(job.store, job.path),
        device_of_rank(job.resources),
        session=session,
        curve=curve,
        micro_batch=job.resources.micro_batch,
        progress=progress,
        should_stop=should_stop,
    )


def threads_of(resources: Resources) -> int:
    """torch's threads in one rank."""
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


def train_on_ray(job: TrainingJob, progress: Progress) -> None:
    """A group of ranks by Ray Train, which places them, and starts the group again when a worker is lost.

    Raises:
        ValueError: the training itself cannot go on (as `trainer.train` says); it is not tried again.
        NodeFailed: more workers were lost than `infrastructure_retries`.
    """
    # The controller looks this often whether its workers are done; the default of 2 s is felt in a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    if not ray.is_initialized():
        ray.init(log_to_driver=True, logging_level="warning")
    resources = job.resources
    of_worker: dict[str, float] = {"CPU": resources.cpus}
    if resources.gpus:
        of_worker["GPU"] = resources.gpus
    if resources.memory_gb:
        of_worker["memory"] = resources.memory_gb * 2**30
    trainer = TorchTrainer(
        _ray_rank,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=of_worker
        ),
        run_config=RunConfig(
            name=f"{job.path.key[:16]}-{job.attempt}",
            failure_config=FailureConfig(max_failures=resources.infrastructure_retries),
        ),
    )
    try:
        with _relayed_progress(job, progress):
            refusal = trainer.fit().return_value
    except TrainingFailedError as error:
        raise NodeFailed(f"training lost its workers more often than infrastructure_retries allows: {error}") from error
    if refusal is not None:
        raise ValueError(refusal)


def _ray_rank(config: dict[str, Any]) -> str | None:
    """A Ray Train worker. What makes further tries pointless is returned, because Ray Train would try again."""
    job: TrainingJob = config["job"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train_rank(job, _StoredProgress(job))
    except ValueError as error:
        return str(error)
    return None


class _StoredProgress:
    """Rank 0 is in another process than the job: its progress goes through the store."""

    def __init__(self, job: TrainingJob):
        self._job = job
        self._told = 0.0

    def __call__(self, done: float, total: float, unit: str, **extra: Any) -> None:
        if done < total and time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        content = {"done": done, "total": total, "unit": unit, **extra}
        self._job.store.put(self._job.progress_path, json.dumps(content).encode())


@contextmanager
def _relayed_progress(job: TrainingJob, progress: Progress) -> Iterator[None]:
    """Shows, while this lasts, what rank 0 stores."""
    over = threading.Event()

    def relay() -> None:
        shown = None
        while not over.wait(PROGRESS_SECONDS):
            data = job.store.get(job.progress_path)
            if data is not None and data != shown:
                shown = data
                progress(**json.loads(data))

    thread = threading.Thread(target=relay, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)
