"""Ranks as a Ray Train worker group, which places them, watches them, and starts them again when one is lost.

Neither the job nor Ray Train's controller imports torch (2 s of CPU each): the backend below only gives every worker
the environment that torchrun would, and the workers make their process group from it.
"""

import itertools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.checkpoint.store import StoreError
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.pretrain.launch import Progress, TrainingJob, backend_of, device_of_rank, sigterm_asks, train_rank

log = logging.getLogger("headrace")

PROGRESS_SECONDS = 2.0
STOP_SECONDS = 1.0
"""Between two looks whether the job was told to stop."""
RESIZE_SECONDS = 60.0
"""Between two looks whether machines came back, where fewer than all workers run."""
PLACEMENT_SECONDS = 15
"""For how long a group whose size may change waits for its place: Ray's view of what is there is up to 20 s old, and
machines that are gone by now are not waited for."""
ANSWER_SECONDS = 30.0
LAST_SAVE_SECONDS = 300.0
"""For a last checkpoint, before a group that is well is replaced by one of another size."""
WARNING_STEPS = 10
"""Between two questions whether a node will be taken away, which all ranks ask together. Clouds warn 30 s and more
before."""


def train_on_ray(job: TrainingJob, progress: Progress) -> None:
    """Trains on `job.resources.workers` ranks, or with `min_workers` on as many as there is room for.

    Raises:
        ValueError: the training itself cannot go on (as `trainer.train` says); it is not tried again.
        NodeFailed: more workers were lost than `infrastructure_retries`, or SIGTERM came; a checkpoint of the step
            that was taken then stands.
    """
    # The controller looks this often whether its workers are done; the default of 2 s is felt in a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if not ray.is_initialized():
        ray.init(log_to_driver=True, logging_level=logging.WARNING)
    resources = job.resources
    elastic = resources.min_workers is not None
    if elastic:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACEMENT_SECONDS))
    alone = len(ray.nodes()) == 1 and not elastic
    if alone:  # one process less: no other node could announce that it goes away
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    of_worker: dict[str, float] = {"CPU": resources.cpus}
    if resources.gpus:
        of_worker["GPU"] = resources.gpus
    if resources.memory_gb:
        of_worker["memory"] = resources.memory_gb * 2**30
    trainer = DataParallelTrainer(
        _worker,
        train_loop_config={"job": job, "warns": not alone},
        backend_config=TorchrunEnvironment(),
        scaling_config=ScalingConfig(
            num_workers=(resources.min_workers, resources.workers) if resources.min_workers else resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=of_worker,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=f"{job.path.key[:16]}-{job.attempt}",
            failure_config=FailureConfig(max_failures=resources.infrastructure_retries),
        ),
    )
    try:
        with sigterm_asks() as asked, _relayed(job, progress, asked):
            result: Any = trainer.fit()
    except TrainingFailedError as error:
        raise NodeFailed(
            f"training failed more often than resources.infrastructure_retries ({resources.infrastructure_retries}) "
            f"allows: {error}"
        ) from error
    if isinstance(result.return_value, Stopped):
        raise NodeFailed(result.return_value.words)
    if result.return_value is not None:
        raise ValueError(result.return_value)


@dataclass(frozen=True)
class Stopped:
    """A worker's result where the job was told to stop."""

    words: str


def _worker(config: dict[str, Any]) -> "str | Stopped | None":
    """One rank."""
    try:
        return _train(config["job"], config["warns"])
    finally:
        _over.set()


def _train(job: TrainingJob, warns: bool) -> "str | Stopped | None":
    """What makes further tries pointless is returned, because Ray Train would try again."""
    import torch.distributed as dist

    from ray_jobs.pretrain.trainer import TrainingStopped

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device_of_rank(job.resources)
    dist.init_process_group(backend_of(job.resources))
    try:
        with _told_to_stop(job) as told:
            warned = _warned_once() if warns else lambda: False
            train_rank(job, _StoredProgress(job), lambda: told() or _asked_to_stop.is_set(), warned)
    except ValueError as error:
        return str(error)
    except TrainingStopped as stopped:
        return Stopped(str(stopped))
    finally:
        dist.destroy_process_group()
    return None


# Of a worker's process, which is one rank of one group: the training runs in a thread of it.
_asked_to_stop = threading.Event()
_over = threading.Event()


def _ask_to_stop() -> bool:
    """Whether training was still under way."""
    _asked_to_stop.set()
    return not _over.is_set()


def _wait_until_over(seconds: float) -> bool:
    return _over.wait(seconds)


@contextmanager
def _told_to_stop(job: TrainingJob) -> Iterator[Callable[[], bool]]:
    """The first rank looks for what the job leaves in the store when it gets SIGTERM; one that knows is enough."""
    if int(os.environ["RANK"]):
        yield lambda: False
        return
    told, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(STOP_SECONDS):
            try:
                if job.store.get(job.stop_path) is not None:
                    told.set()
                    return
            except StoreError as error:  # training itself will say so, or the store comes back
                log.warning("cannot look whether to stop: %s", error)

    thread = threading.Thread(target=look, name="stop", daemon=True)
    thread.start()
    try:
        yield told.is_set
    finally:
        over.set()
        thread.join(timeout=10)


def _warned_once() -> Callable[[], bool]:
    """True once, when Ray has said that a node of these workers will be taken away: what is saved then is where the
    workers that replace them go on. Every rank asks at the same steps, as Ray wants it."""
    steps = itertools.count(1)
    saved = False

    def warned() -> bool:
        nonlocal saved
        if saved or next(steps) % WARNING_STEPS:
            return False
        saved = ray.train.get_preemption_info() is not None
        return saved

    return warned


class TorchrunEnvironment(BackendConfig):
    """Tells Ray Train to give its workers RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _EnvironmentBackend


class _EnvironmentBackend(Backend):
    # The GPUs of all workers of a machine are visible to each: LOCAL_RANK names one, and NCCL reaches the others.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, _free_port)
        worker_group.execute(_set_environment, address, port)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """A group that is well is replaced by one of another size, or before its machines go: it saves first. Where
        training is over on any rank, it ended or failed, and there is nothing to wait for; one that is lost raises."""
        try:
            runs = ray.get(worker_group.execute_async(_ask_to_stop), timeout=ANSWER_SECONDS)
            if all(runs):
                log.warning("the workers save a checkpoint: their number changes, or their machines go")
                saved = worker_group.execute_async(_wait_until_over, LAST_SAVE_SECONDS)
                ray.get(saved, timeout=LAST_SAVE_SECONDS + ANSWER_SECONDS)
        except GetTimeoutError:
            log.warning("the workers do not answer: what they did since the newest checkpoint is done again")


def _free_port() -> tuple[str, int]:
    """An address of this worker that others reach, and a port that is free on it."""
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]


def _set_environment(address: str, port: int) -> None:
    context = ray.train.get_context()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
    )


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
def _relayed(job: TrainingJob, progress: Progress, asked: Callable[[], bool]) -> Iterator[None]:
    """While this lasts, shows what rank 0 stores, and tells it to stop once that is asked."""
    over = threading.Event()

    def relay() -> None:
        shown = None
        last = told = False
        while not last:
            last = over.wait(PROGRESS_SECONDS)  # once more when it is over
            if asked() and not told:
                told = True
                job.store.put(job.stop_path, json.dumps({"at": time.time()}).encode())
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
