"""Which activations of a layer the forward pass keeps for the backward pass, and which are computed again.

none keeps all. full keeps a layer's input and computes all else again, a third more work (Chen et al. 2016,
arXiv:1604.06174). selective keeps what is dear to compute for its size, attention and products of matrices, but not the
products that are wider than their input: those of the MLP, two thirds of what is kept and half of a layer's work.
Norms, rotations and gates are computed again (Korthikanti et al. 2022, arXiv:2205.05198, section 5).
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]

aten = torch.ops.aten
ATTENTION = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
}
# Of each, the places of the two matrices among its arguments.
PRODUCTS = {aten.mm.default: (0, 1), aten._scaled_mm.default: (0, 1), aten.addmm.default: (1, 2)}


def set_recompute(layers: Iterable[nn.Module], recompute: Recompute) -> None:
    """Has every layer compute again in the backward pass what `recompute` says.

    It is the layer's forward that is run again, not its call: FSDP's hooks, which gather weights, stay outside, and a
    compiler that takes the layer sees what to keep.
    """
    if recompute == "none":
        return
    # Layers have no dropout: the state of random numbers need not be kept.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recompute == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    for layer in layers:
        layer.forward = _checkpointed(layer.forward, options)


def _checkpointed(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:  # a frame of its own, at which a compiler can begin
        return checkpoint(forward, *arguments, **named, **options)

    return run


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    if operation in ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if operation in PRODUCTS:
        left, right = (arguments[place] for place in PRODUCTS[operation])
        return CheckpointPolicy.PREFER_RECOMPUTE if _widens(left, right) else CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _widens(left_NI: Tensor, right_IO: Tensor) -> bool:
    return right_IO.shape[1] > left_NI.shape[1]
