"""Attention over the memory's blocks, for transformers' own decoders.

A step computes some new tokens of many sequences at once, all in one row: first such as are decoded, each for itself,
then stretches of prompts. transformers' layers call the attention that is registered here, which writes the new keys
and values to their places and lets every token see those of its own sequence up to itself.

It is one operator to torch.compile, which finds the step by itself: so a compiled layer serves every layer, step and
memory.

Shapes: N new tokens of a step, the first R decoded, H heads, G key-value heads, B blocks of the longest table, L tokens
of a sequence, D width of a head.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.inference.memory import Memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headrace-paged"
# Types of transformers whose attention was seen to be this one; others have sinks, soft caps or layers without turns.
SERVED = {"llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe", "olmo2", "gemma"}


@dataclass(frozen=True)
class Stretch:
    """Neighbouring new tokens of one sequence's prompt."""

    first: int
    """Among the step's tokens."""
    count: int
    slots_L: Tensor
    """Of all its tokens up to the last new one."""


@dataclass(frozen=True)
class Step:
    """Which tokens a forward pass computes, and where what they see lies."""

    memory: Memory
    slots_N: Tensor
    """Where the new tokens' keys and values go: int64."""
    tables_RB: Tensor
    """The blocks of the decoded tokens' sequences, int32. Several tokens of one sequence have a row each."""
    lengths_R: Tensor
    """How many tokens each sees, itself included: int32."""
    stretches: tuple[Stretch, ...] = ()


class _Current(threading.local):
    step: Step | None = None


_current = _Current()


@contextmanager
def computing(step: Step) -> Iterator[None]:
    """Attention within is over this step."""
    _current.step = step
    try:
        yield
    finally:
        _current.step = None


def use_paged_attention(model: "PreTrainedModel") -> None:
    """Has the model's layers attend within `computing(step)`.

    Raises:
        ValueError: the model attends in a way that is not this one.
    """
    from transformers import AttentionInterface

    config = model.config
    base: Any = model.base_model
    if config.model_type not in SERVED:
        raise ValueError(
            f"{type(model).__name__} is not known to do nothing but what {', '.join(sorted(SERVED))} do: serve it by "
            "generate"
        )
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < config.max_position_embeddings:
        raise ValueError(
            f"attention in a sliding window of {window} tokens is not served: lower max_position_embeddings to it"
        )
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") in {"dynamic", "longrope"}:
        raise ValueError(
            "this rope scaling turns all keys anew as a text grows, so keys cannot be kept: choose yarn or linear"
        )
    AttentionInterface.register(NAME, _attention)
    config._attn_implementation = NAME
    for number, layer in enumerate(base.layers):
        # A tensor, so that code compiled for one layer is not bound to that layer's number.
        layer.self_attn.headrace_layer = torch.tensor(number)


def _attention(
    module: Any, q_1HND: Tensor, k_1GND: Tensor, v_1GND: Tensor, mask: None, *, scaling: float, **options: Any
) -> tuple[Tensor, None]:
    return attend(q_1HND, k_1GND, v_1GND, module.headrace_layer, scaling), None


@torch.library.custom_op("headrace::attend", mutates_args=())
def attend(q_1HND: Tensor, k_1GND: Tensor, v_1GND: Tensor, layer: Tensor, scaling: float) -> Tensor:
    """What the new tokens see, [1, N, H, D], their keys and values being written to the current step's memory."""
    assert _current.step is not None, "attention outside of a step"
    q_NHD, k_NGD, v_NGD = (x[0].transpose(0, 1) for x in (q_1HND, k_1GND, v_1GND))
    return seen(_current.step, int(layer), q_NHD, k_NGD, v_NGD, scaling).unsqueeze(0)


@attend.register_fake
def _(q_1HND: Tensor, k_1GND: Tensor, v_1GND: Tensor, layer: Tensor, scaling: float) -> Tensor:
    one, heads, count, width = q_1HND.shape
    return q_1HND.new_empty(one, count, heads, width)


def seen(step: Step, layer: int, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, scaling: float) -> Tensor:
    """What the new tokens see, [N, H, D]; their keys and values are written to the step's memory."""
    out_NHD = torch.empty(q_NHD.shape, dtype=q_NHD.dtype, device=q_NHD.device)
    num_decoded = len(step.lengths_R)
    if q_NHD.is_cuda:
        from ray_jobs.inference import paged_gpu as paged
    else:
        from ray_jobs.inference import paged_cpu as paged  # type: ignore[no-redef]
    paged.write(step.memory, layer, step.slots_N, k_NGD, v_NGD)
    if num_decoded:
        paged.attend(q_NHD[:num_decoded], step, layer, scaling, out_NHD[:num_decoded])
    for stretch in step.stretches:
        new = slice(stretch.first, stretch.first + stretch.count)
        out_NHD[new] = _stretch(q_NHD[new], *step.memory.read(layer, stretch.slots_L), scaling)
    return out_NHD


def _stretch(q_NHD: Tensor, k_LGD: Tensor, v_LGD: Tensor, scaling: float) -> Tensor:
    """[N, H, D]: the last of the N tokens sees all L, each before it one less."""
    from torch.nn.attention.bias import causal_lower_right

    count, length = len(q_NHD), len(k_LGD)
    q_1HND, k_1GLD, v_1GLD = (x.transpose(0, 1).unsqueeze(0) for x in (q_NHD, k_LGD, v_LGD))
    seen: Any = None
    if 1 < count < length:  # torch's own causal mask would align the first with the first
        if q_NHD.is_cuda:  # flash attention takes this, but no mask
            seen = causal_lower_right(count, length)
        else:
            seen = torch.ones(count, length, dtype=torch.bool).tril(length - count)
    out_1HND = F.scaled_dot_product_attention(
        q_1HND, k_1GLD, v_1GLD, attn_mask=seen, is_causal=1 < count == length, scale=scaling, enable_gqa=True
    )
    return out_1HND[0].transpose(0, 1)
