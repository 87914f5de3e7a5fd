"""Keys and values in blocks, and attention over them, for transformers' own decoders.

A step computes some new tokens of many sequences at once, all in one row: first one token each of those that are being
decoded, then stretches of prompts. transformers' layers call the attention that is registered here, which writes the
new keys and values to their places and lets every token see those of its own sequence up to itself.

Shapes: N new tokens of a step, R sequences being decoded, H heads, G key-value heads, L tokens of the longest sequence,
D width of a head, S slots of the memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_jobs.inference.blocks import Copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headrace-paged"


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

    memory: "Memory"
    slots_N: Tensor
    decoded_RL: Tensor | None
    """Slots of the sequences whose one new token comes first in the step, padded with any slot; None without such."""
    hidden_RL: Tensor | None
    """True where it is padded."""
    stretches: tuple[Stretch, ...]


class Memory:
    """Keys and values of all layers."""

    def __init__(self, model: "PreTrainedModel", num_slots: int):
        config = model.config
        shape = (config.num_hidden_layers, num_slots, config.num_key_value_heads, _head_width(config))
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros_like(self.keys)

    def copy(self, copies: list[Copy], block_size: int) -> None:
        for copy in copies:
            source, target = copy.source * block_size, copy.target * block_size
            for cells in (self.keys, self.values):
                cells[:, target : target + copy.count] = cells[:, source : source + copy.count]


def _head_width(config: Any) -> int:
    """Qwen2's configuration has no width of its own."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def use_paged_attention(model: "PreTrainedModel") -> None:
    """Has the model's layers attend by `Step`s, which `model(…, step=step)` gives them.

    Raises:
        ValueError: the model attends in a way that is not this one.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    config = model.config
    if not hasattr(config, "num_key_value_heads"):
        raise ValueError(f"{type(model).__name__} has no rotary attention over key-value heads: serve it by generate")
    if getattr(config, "use_sliding_window", False):
        raise ValueError("attention in a sliding window is not served: set use_sliding_window to false")
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "dynamic":
        raise ValueError(
            "dynamic rope scaling turns all keys anew as a text grows, so keys cannot be kept: choose yarn or linear"
        )
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    config._attn_implementation = NAME


def _no_mask(*arguments: Any, **options: Any) -> None:
    """What a token sees follows from its step."""


def _attention(
    module: Any,
    q_1HND: Tensor,
    k_1GND: Tensor,
    v_1GND: Tensor,
    mask: None,
    *,
    scaling: float,
    step: Step,
    **options: Any,
) -> tuple[Tensor, None]:
    keys_SGD, values_SGD = (cells[module.layer_idx] for cells in (step.memory.keys, step.memory.values))
    keys_SGD[step.slots_N] = k_1GND[0].transpose(0, 1)
    values_SGD[step.slots_N] = v_1GND[0].transpose(0, 1)
    parts = []
    if step.decoded_RL is not None and step.hidden_RL is not None:
        q_RH1D = q_1HND[0, :, : len(step.decoded_RL)].transpose(0, 1).unsqueeze(2)
        k_RGLD, v_RGLD = (cells[step.decoded_RL].transpose(1, 2) for cells in (keys_SGD, values_SGD))
        seen_R11L = ~step.hidden_RL[:, None, None, :]
        out_RH1D = F.scaled_dot_product_attention(
            q_RH1D, k_RGLD, v_RGLD, attn_mask=seen_R11L, scale=scaling, enable_gqa=True
        )
        parts.append(out_RH1D.squeeze(2))
    for stretch in step.stretches:
        q_1HnD = q_1HND[:, :, stretch.first : stretch.first + stretch.count]
        k_1GLD, v_1GLD = (cells[stretch.slots_L].transpose(0, 1).unsqueeze(0) for cells in (keys_SGD, values_SGD))
        length = len(stretch.slots_L)
        # The last new token sees all; torch's own causal mask would align the first with the first.
        seen_nL = torch.ones(stretch.count, length, dtype=torch.bool, device=q_1HnD.device).tril(length - stretch.count)
        out_1HnD = F.scaled_dot_product_attention(
            q_1HnD, k_1GLD, v_1GLD, attn_mask=seen_nL, scale=scaling, enable_gqa=True
        )
        parts.append(out_1HnD[0].transpose(0, 1))
    return torch.cat(parts).unsqueeze(0), None
