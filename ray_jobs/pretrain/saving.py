"""Training checkpoints that are written while training goes on.

A save holds training up only while the tensors are copied to the host's memory. A thread then writes them to the store
and publishes the receipt when every rank's objects stand, so that a save that dies on the way is none. Its collectives
go through a gloo group of its own: those of training may run meanwhile, on a GPU through NCCL.

A save that failed is told of at the next step (`Saver.failed`), which makes another one due: a store that was away for
a moment costs nothing. When that one fails as well, training stops.
"""

import logging
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

log = logging.getLogger("headrace")

FAILURES_BORNE = 1
"""Saves that may fail one after another before training stops."""


class SaveFailed(NodeFailed):
    """A checkpoint could not be written; those before it stand."""


class Saver:
    """Saves one checkpoint at a time, of the tensors that it was made with. Every rank makes one, and calls its methods
    at the same steps."""

    def __init__(
        self,
        steps: StepStore,
        session: str,
        tensors: dict[str, Tensor],
        kept: int,
        permanent_every: int | None = None,
        reach: int = 0,
    ):
        """`reach`: checkpoints of so many steps before the newest are kept too."""
        self._steps, self.session, self._tensors = steps, session, tensors
        self._kept, self._permanent_every, self._reach = kept, permanent_every, reach
        self._group = dist.new_group(backend="gloo")
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        # Pinned memory is taken once: that of a billion parameters takes seconds to get.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=on_gpu)
        if on_gpu:
            self._stager.stage(tensors)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copied: dict[str, Any] = {}
        self._writing: Future[float] | None = None
        self._step = 0
        self._failures = 0
        self._pause = 0.0
        self.written_seconds: list[float] = []
        """Of each save, in the background."""

    @property
    def failed(self) -> bool:
        """Whether this rank knows that the save under way came to nothing. Not collective."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def copy(self, step: int) -> None:
        """Takes a copy of the tensors, once the save before is written. Collective.

        Raises:
            SaveFailed: on every rank, where that save and the one before it failed on any.
        """
        began = time.perf_counter()
        self.settle(f"step {step} is tried instead")
        self._copied = self._stager.stage(self._tensors)
        self._step = step
        self._pause += time.perf_counter() - began

    def settle(self, instead: str) -> None:
        """Waits for what is being written. Collective.

        Args:
            instead: what is done where it failed.

        Raises:
            SaveFailed: on every rank, where it and the one before it failed on any.
        """
        failure = self._join()
        if failure is None:
            return
        if self._failures > FAILURES_BORNE:
            raise failure
        if dist.get_rank() == 0:
            log.warning("%s; %s", failure, instead)

    def write(self, state: dict[str, Any]) -> None:
        """Begins to write the copy, and `state` with it."""
        self._writing = self._writer.submit(self._write, self._step, self._copied, state)

    def finish(self) -> None:
        """Waits for what is being written. Collective.

        Raises:
            SaveFailed: on every rank, where it failed on any.
        """
        failure = self._join()
        if failure is not None:
            raise failure

    def take_pause(self) -> float:
        """Seconds for which training was held up since this was last asked."""
        pause, self._pause = self._pause, 0.0
        return pause

    def close(self) -> None:
        """Waits for what is being written, whatever comes of it: it needs the process group. Not collective."""
        self._writer.shutdown()

    def _write(self, step: int, copied: dict[str, Any], state: dict[str, Any]) -> float:
        began = time.perf_counter()
        save_step(self._steps, step, self.session, copied, state, self._group)
        if dist.get_rank() == 0:
            try:
                self._steps.keep_newest(self._kept, self._permanent_every, step - self._reach)
            except OSError as error:  # the next save deletes them
                log.warning("checkpoints that are no longer kept could not be deleted: %s", error)
        return time.perf_counter() - began

    def _join(self) -> SaveFailed | None:
        """Waits for the save under way, and says on every rank what went wrong on any."""
        if self._writing is None:
            return None
        own = self._writing.exception()  # waits
        if own is None:
            self.written_seconds.append(self._writing.result())
        self._writing = None
        gathered: list[list[str]] = [[]] * dist.get_world_size()
        dist.all_gather_object(gathered, [] if own is None else _in_words(own), group=self._group)
        found = sorted({words for rank in gathered for words in rank})  # DCP tells each rank what befell any
        if not found:
            self._failures = 0
            return None
        self._failures += 1
        if dist.get_rank() == 0:
            self._clear()
        size = sum(tensor.numel() * tensor.element_size() for tensor in self._tensors.values())
        failure = SaveFailed(
            f"the checkpoint of step {self._step} could not be written ({'; '.join(found)}): see that the store can be "
            f"reached and has room for one more of {_bytes_in_words(size)}, and run again, which goes on from the "
            "newest that stands"
        )
        failure.__cause__ = own
        return failure

    def _clear(self) -> None:
        """What the failed save wrote takes room that the next one needs."""
        try:
            self._steps.discard(self._step, self.session)
        except OSError as error:  # a later save deletes it
            log.warning("what the failed save left could not be deleted: %s", error)


def _bytes_in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _in_words(error: BaseException) -> list[str]:
    """What went wrong, by rank."""
    causes = {dist.get_rank(): error}
    if isinstance(error, CheckpointException):
        causes = {rank: cause for rank, (cause, _) in error.failures.items()}
    return [f"rank {rank}: {type(cause).__name__}: {cause}" for rank, cause in causes.items()]
