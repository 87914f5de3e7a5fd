"""AdamW over groups with and without decay, its state made at once, and clipping by the global norm."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from configs.pretrain import OptimizerSpec


def parameter_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Names to parameters: those that decay, and those that do not.

    Norms, biases, every other 1-D tensor and embeddings do not decay, nor does an output head that is tied to one. Each
    parameter is in exactly one group.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed: dict[str, nn.Parameter] = {}
    kept: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():  # a shared parameter comes once, under its first name
        group = kept if parameter.ndim < 2 or id(parameter) in embeddings else decayed
        group[name] = parameter
    return decayed, kept


def build_adamw(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) whose state exists from the start: zeros, as AdamW itself would make it at its
    first step, so that a checkpoint holds and fills the same tensors at every step."""
    decayed, kept = parameter_groups(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(decayed.values()), "weight_decay": spec.weight_decay},
            {"params": list(kept.values()), "weight_decay": 0.0},
        ],
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        fused=True,
    )
    for parameter in (*decayed.values(), *kept.values()):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by name, for a checkpoint. Its step count is the training step, which the receipt holds."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for moment in ("exp_avg", "exp_avg_sq")
        for name, parameter in model.named_parameters()
    }


def set_optimizer_step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Tells the bias correction how many steps were taken."""
    for state in optimizer.state.values():
        state["step"].fill_(float(step))


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """This rank's shards of the gradients, as plain tensors."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]


def num_copies(parameter: nn.Parameter) -> int:
    """How many groups of ranks hold all of the model: more than one under HSDP."""
    mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
    return mesh.size(0) if mesh is not None and mesh.ndim > 1 else 1


def sum_of_squares(gradients: list[Tensor]) -> Tensor:
    """Over one rank's shards, in fp32; the squared global norm is the sum over ranks.

    On a CPU not by torch's norms: they add in sequence, and are off by 5e-4 for a matrix of 4 million equal values;
    `sum` adds in pairs.
    """
    if gradients and gradients[0].is_cuda:
        return torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)).square().sum()
    return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()


def all_sum(values: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    dist.all_reduce(values)
    return values
