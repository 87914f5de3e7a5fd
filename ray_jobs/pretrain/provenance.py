"""Where a loss or gradient stopped being a number: the rank, the micro-batch and the module.

Nothing is watched while training is well. Once a step gave no number, no weight was changed by it, so its micro-batches
are run through the model again with a hook on every module, which finds the first that gives such an output.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ray_jobs.model.loss import LossModel

KINDS = ("weights", "output", "gradient")


@dataclass(frozen=True)
class Cause:
    """What a rank found."""

    rank: int | None
    """None of a gradient that is the sum of several ranks'."""
    micro_batch: int | None
    """Of the step, on this rank; None of weights, which no sample changed."""
    module: str
    """By its name in transformers' model; of a gradient the parameter."""
    kind: str
    """One of KINDS."""

    def __str__(self) -> str:
        said = {
            "weights": f"weights of {self.module} are not finite",
            "output": f"{self.module} is the first to give numbers that are not finite, of finite weights",
            "gradient": f"the loss is finite, and the gradient of {self.module} is not",
        }
        places = {"rank": self.rank, "micro-batch": self.micro_batch}
        where = ", ".join(f"{name} {place}" for name, place in places.items() if place is not None)
        return f"{where}: {said[self.kind]}"


def causes_of(model: LossModel, micro_batches: Iterable[tuple[Tensor, ...]]) -> list[Cause]:
    """The first cause on each rank that has one, by rank; of the kinds only that which explains the others: weights,
    which all ranks gather, before outputs, and outputs, whose gradients are added up, before gradients. Collective;
    leaves no gradients.

    Args:
        micro_batches: those of the step on this rank, as `step.take_step` takes them; as many on every rank.
    """
    own = _own_cause(model, micro_batches)
    gathered: list[Cause | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    causes = [cause for cause in gathered if cause is not None]
    kind = min((cause.kind for cause in causes), key=KINDS.index, default="")
    causes = [cause for cause in causes if cause.kind == kind]
    if kind != "gradient" or len(gathered) == 1:
        return causes
    # Of a sum over ranks, of which each looked at its own part.
    first = min(causes, key=lambda cause: cause.micro_batch or 0)
    return [replace(first, rank=None)]


def _own_cause(model: LossModel, micro_batches: Iterable[tuple[Tensor, ...]]) -> Cause | None:
    rank = dist.get_rank()
    broken = _first_not_finite(model.model.named_parameters())
    found = None if broken is None else Cause(rank, None, broken.rpartition(".")[0], "weights")
    model.zero_grad()
    for number, micro_batch in enumerate(micro_batches):  # to the end on every rank: FSDP's forward is collective
        with torch.compiler.set_stance("force_eager"), _watched(model.model) as seen:
            model(*micro_batch).total.backward()
        if found is None and seen:
            found = Cause(rank, number, seen[0], "output")
        # The last parameter is the first that backward comes to.
        gradients = [(name, parameter.grad) for name, parameter in model.model.named_parameters()][::-1]
        broken = _first_not_finite((name, gradient) for name, gradient in gradients if gradient is not None)
        if found is None and broken is not None:
            found = Cause(rank, number, broken, "gradient")
    model.zero_grad()
    return found


def _first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    for name, tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not local.isfinite().all():
            return name
    return None


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules whose output is not finite, in the order in which they came to it: the innermost first."""
    seen: list[str] = []

    def hook_of(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            parts = output if isinstance(output, tuple) else (output,)
            if any(isinstance(part, Tensor) and not part.detach().isfinite().all() for part in parts):
                seen.append(name)

        return look

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
