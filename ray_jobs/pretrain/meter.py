"""The lines of the loss curve: sums over some steps, and what these steps took."""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from configs.pretrain import PretrainSpec
from configs.size import model_size, peak_flops
from ray_jobs.pretrain.step import Taken

if TYPE_CHECKING:
    from ray_jobs.pretrain.position import Position

B = TypeVar("B")
R = TypeVar("R")


@dataclass
class Interval:
    """Sums since the last line of the curve. Checkpointed, so that a resumed curve is the uninterrupted one."""

    steps: int = 0
    loss: float = 0.0
    z_loss: float = 0.0
    norm: float = 0.0
    norm_max: float = 0.0
    clipped: int = 0

    def add(self, taken: Taken, clip_norm: float) -> None:
        self.steps += 1
        self.loss += taken.loss
        self.z_loss += taken.z_loss
        self.norm += taken.norm
        self.norm_max = max(self.norm_max, taken.norm)
        self.clipped += taken.norm > clip_norm


class Meter:
    """Turns the sums of an interval into a line of the curve."""

    def __init__(
        self,
        spec: PretrainSpec,
        num_tokens: int,
        num_samples: int,
        device: torch.device,
        step: int,
        restarts: int = 0,
    ):
        self._spec, self._num_samples, self._device, self._restarts = spec, num_samples, device, restarts
        self._flops = model_size(spec.model, num_tokens, spec.sequence_length).flops_per_token
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak = None if peak is None else peak * dist.get_world_size()
        self._step, self._time, self._waited = step, time.perf_counter(), 0.0

    def waited(self, batches: Iterator[B]) -> Iterator[B]:
        """The batches, the time until each is there taken down."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def apart(self, work: Callable[[], R]) -> R:
        """What `work` returns; its time belongs to no step."""
        began = time.perf_counter()
        result = work()
        self._time += time.perf_counter() - began
        return result

    def go_back(self, step: int) -> None:
        """Times from here on are of the steps behind `step`."""
        self._step, self._time, self._waited = step, time.perf_counter(), 0.0

    def record(self, position: "Position", rate: float, checkpoint_pause: float) -> dict[str, Any]:
        """A line of the curve.

        Args:
            position: after the line's last step, with the sums since the line before.
            rate: the learning rate of the last step.
            checkpoint_pause: seconds that training was held up by checkpoints.
        """
        spec, step, interval, now = self._spec, position.step, position.interval, time.perf_counter()
        samples = step * spec.global_batch
        # A resumed session timed only the steps it took itself.
        seconds = now - self._time
        speed = (step - self._step) * spec.global_batch * spec.sequence_length / seconds
        waited, self._waited = self._waited, 0.0
        self._step, self._time = step, now
        return {
            "step": step,
            "loss": interval.loss / interval.steps,
            **({"z_loss": interval.z_loss / interval.steps} if spec.optimizer.z_loss else {}),
            "grad_norm": interval.norm / interval.steps,
            "grad_norm_max": interval.norm_max,
            "clipped_share": interval.clipped / interval.steps,
            "learning_rate": rate,
            "samples": samples,
            "tokens": samples * spec.sequence_length,
            "epoch": position.batch * spec.global_batch / self._num_samples,
            "tokens_per_second": speed,
            **({"mfu": speed * self._flops / self._peak} if self._peak else {}),
            "data_wait_share": waited / seconds,
            "checkpoint_pause_s": checkpoint_pause,
            "peak_memory_gb": self._peak_memory() / 1e9,
            "restarts": self._restarts,
            "spikes": len(position.spikes.spikes),
            "time": time.time(),
        }

    def _peak_memory(self) -> int:
        """Bytes: of the GPU's own allocator, or the process's resident set."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
