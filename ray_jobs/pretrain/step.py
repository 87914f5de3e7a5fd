"""One optimizer step: micro-batches forward and backward, one all-reduce of six numbers, AdamW.

Shape suffixes: B sequences of a micro-batch, L tokens of a sequence.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_jobs.model.loss import LossModel
from ray_jobs.pretrain.optimizer import all_sum, local_gradients, num_copies, sum_of_squares


@dataclass(frozen=True)
class Taken:
    """What all ranks know of a step."""

    loss: float
    """Mean over the tokens that were scored, nats."""
    z_loss: float
    norm: float
    """Of the mean's gradient, before clipping."""
    saves: bool
    """Whether any rank was asked to save a checkpoint, or to stop."""
    stops: bool
    """Whether any rank was asked to stop."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss + self.z_loss + self.norm)


def take_step(
    model: LossModel,
    optimizer: torch.optim.AdamW,
    micro_batches: Iterable[tuple[Tensor, ...]],
    clip_norm: float,
    asked_to_save: bool = False,
    asked_to_stop: bool = False,
) -> Taken:
    """One optimizer step; none, where a loss is no number. Collective.

    A micro-batch of this rank is inputs_BL, targets_BL and, of packed documents, positions_BL. Everything that the step
    needs is computed where the gradients are; what the caller is told is copied beside the optimizer's work, so that a
    GPU never waits for the host between two steps.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(6, dtype=torch.float64, device=device)
    for micro_batch in micro_batches:
        loss = model(*micro_batch)
        loss.total.backward()
        sums[0] += loss.cross_entropy
        sums[1] += loss.z_loss
        sums[2] += loss.num_tokens
    sums[3] = sum_of_squares(local_gradients(model.parameters())) / num_copies(next(model.parameters()))
    sums[4], sums[5] = float(asked_to_save), float(asked_to_stop)
    all_sum(sums)
    scored = sums[2]
    norm = sums[3].sqrt() / scored
    finite = (sums[0] + sums[1] + norm).isfinite()
    # Division of the sums by the count, and clipping, within AdamW's kernel; found_inf makes it leave all as it is.
    optimizer.grad_scale = (scored / (clip_norm / (norm + 1e-6)).clamp(max=1.0)).float()  # type: ignore[attr-defined]
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    told = ToHost(torch.cat([sums, norm.reshape(1)]))
    optimizer.step()
    optimizer.zero_grad()
    entropy, z_loss, count, _, saves, stops, length = told.values()
    return Taken(entropy / count, z_loss / count, length, saves + stops > 0, stops > 0)


class ToHost:
    """Numbers on their way from the device, which goes on meanwhile."""

    def __init__(self, numbers: Tensor):
        self._copy = numbers
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._copy = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._copy.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def values(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.tolist()
