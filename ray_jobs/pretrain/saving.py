"""Training checkpoints that are written while training goes on.

A save holds training up only while the tensors are copied to the host's memory. A thread then writes them to the store
and publishes the receipt when every rank's objects stand, so that a save that dies on the way is none. Its collectives
go through a gloo group of its own: those of training may run meanwhile, on a GPU through NCCL.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.pretrain.steps import StepStore
from ray_jobs.pretrain.tensors import save_step


class SaveFailed(NodeFailed):
    """A checkpoint could not be written; those before it stand."""


class Saver:
    """Saves one checkpoint at a time, of the tensors that it was made with. Every rank makes one, and calls its methods
    at the same steps."""

    def __init__(
        self, steps: StepStore, session: str, tensors: dict[str, Tensor], kept: int, permanent_every: int | None = None
    ):
        self._steps, self.session, self._tensors = steps, session, tensors
        self._kept, self._permanent_every = kept, permanent_every
        self._group = dist.new_group(backend="gloo")
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        # Pinned memory is taken once: that of a billion parameters takes seconds to get.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=on_gpu)
        if on_gpu:
            self._stager.stage(tensors)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[float] | None = None
        self._step = 0
        self._pause = 0.0
        self.written_seconds: list[float] = []
        """Of each save, in the background."""

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Takes a copy and begins to write it. Collective.

        Raises:
            SaveFailed: on every rank, where the save before failed on any.
        """
        began = time.perf_counter()
        self._join()
        staged = self._stager.stage(self._tensors)
        self._step = step
        self._writing = self._writer.submit(self._write, step, staged, state)
        self._pause += time.perf_counter() - began

    def finish(self) -> None:
        """Waits for what is being written. Collective. Raises as `save` does."""
        began = time.perf_counter()
        self._join()
        self._pause += time.perf_counter() - began

    def take_pause(self) -> float:
        """Seconds for which training was held up since this was last asked."""
        pause, self._pause = self._pause, 0.0
        return pause

    def close(self) -> None:
        """Waits for what is being written, whatever comes of it: it needs the process group. Not collective."""
        self._writer.shutdown()

    def _write(self, step: int, staged: dict[str, Any], state: dict[str, Any]) -> float:
        began = time.perf_counter()
        save_step(self._steps, step, self.session, staged, state, self._group)
        if dist.get_rank() == 0:
            self._steps.keep_newest(self._kept, self._permanent_every)
        return time.perf_counter() - began

    def _join(self) -> None:
        if self._writing is None:
            return
        own = self._writing.exception()  # waits
        if own is None:
            self.written_seconds.append(self._writing.result())
        self._writing = None
        gathered: list[list[str]] = [[]] * dist.get_world_size()
        dist.all_gather_object(gathered, [] if own is None else _in_words(own), group=self._group)
        found = sorted({words for rank in gathered for words in rank})  # DCP tells each rank what befell any
        if found:
            raise SaveFailed(
                f"the checkpoint of step {self._step} could not be written ({'; '.join(found)}): see that the store "
                "has room and can be reached, and run again, which goes on from the newest that stands"
            ) from own


def _in_words(error: BaseException) -> list[str]:
    """What went wrong, by rank."""
    causes = {dist.get_rank(): error}
    if isinstance(error, CheckpointException):
        causes = {rank: cause for rank, (cause, _) in error.failures.items()}
    return [f"rank {rank}: {type(cause).__name__}: {cause}" for rank, cause in causes.items()]
