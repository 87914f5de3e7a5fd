"""What can go wrong in a training, done to one: an outsized gradient, a collapse of attention, poison batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from ray_jobs.model.loss import LossModel, TokenLoss
from ray_jobs.pretrain import launch, trainer
from ray_jobs.pretrain.trainer import Samples
from ray_jobs.tokenizer.packing import PackedBatch

Harm = Callable[[LossModel], None]


@contextmanager
def harmed(at: int, harm: Harm) -> Iterator[None]:
    """Does harm before the step `at`, counted over all steps taken: steps that are taken again are not harmed."""
    real, taken = trainer.take_step, iter(range(1_000_000))

    def take_step(model: LossModel, *arguments: Any) -> Any:
        if next(taken) == at:
            harm(model)
        return real(model, *arguments)

    trainer.take_step = take_step
    try:
        yield
    finally:
        trainer.take_step = real


def outsized(scale: float) -> Harm:
    """The gradient of one micro-batch is so many times too large, and its loss is as it was."""

    def harm(model: LossModel) -> None:
        forward = model.forward

        def scaled(*arguments: Any) -> TokenLoss:
            model.forward = forward  # type: ignore[method-assign]
            loss = forward(*arguments)
            return loss._replace(total=loss.total * scale)

        model.forward = scaled  # type: ignore[method-assign]

    return harm


def collapsed(factor: float) -> Harm:
    """Queries and keys are so many times too large, until a token attends to a single one."""

    def harm(model: LossModel) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("q_proj.weight", "k_proj.weight")):
                    _local(parameter).mul_(factor)

    return harm


def not_a_number(model: LossModel) -> None:
    with torch.no_grad():
        _local(next(model.parameters()))[0] = torch.nan


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


@contextmanager
def poisoned(batches: range) -> Iterator[None]:
    """Trainings of this process get samples of which these global batches are poison."""
    real = launch.training_samples

    def samples(tokens: Any, spec: Any, resources: Any) -> Any:
        return Poisoned(real(tokens, spec, resources), batches, spec.global_batch)

    launch.training_samples = samples  # type: ignore[assignment]
    try:
        yield
    finally:
        launch.training_samples = real


class Poisoned:
    """Samples, of which those of some global batches are a single token again and again, which a model cannot have
    learnt."""

    def __init__(self, samples: Samples, batches: range, global_batch: int):
        self.samples, self.batches, self.global_batch = samples, batches, global_batch

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, first: int, count: int) -> "np.ndarray | PackedBatch":
        batch = self.samples.batch(first, count)
        if first // self.global_batch not in self.batches:
            return batch
        assert isinstance(batch, np.ndarray)
        return np.full_like(batch, 501)
