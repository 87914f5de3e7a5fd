"""Keys and values of all layers, in slots: as the model computes them, or as int8 with a scale for each token and head.

No block and no sequence is known here: whoever asks names slots.

Shapes: S slots, N new tokens, L tokens read, G key-value heads, D width of a head.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ray_jobs.inference.blocks import Copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INT8_MAX = 127  # symmetric: −128 is not used


class Memory:
    """A block more than was asked for, the last: what is computed only to fill a shape is written there."""

    def __init__(
        self, model: "PreTrainedModel", num_blocks: int, block_size: int, kv_dtype: Literal["model", "int8"] = "model"
    ):
        config = model.config
        shape = ((num_blocks + 1) * block_size, config.num_key_value_heads, head_width(config))
        # numba, which reads them on a CPU, has no fp16.
        kept = torch.float32 if model.dtype == torch.float16 and model.device.type == "cpu" else model.dtype
        dtype = torch.int8 if kv_dtype == "int8" else kept
        self.block_size, self.dtype = block_size, model.dtype

        def layers(shape: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
            return [torch.zeros(shape, dtype=dtype, device=model.device) for _ in range(config.num_hidden_layers)]

        self.keys, self.values = layers(shape, dtype), layers(shape, dtype)
        """Of each layer, [S, G, D]."""
        self.key_scales: list[Tensor] | None = None
        self.value_scales: list[Tensor] | None = None
        """Of each layer, [S, G]: what an int8 is multiplied by."""
        if kv_dtype == "int8":
            self.key_scales, self.value_scales = layers(shape[:2], torch.float32), layers(shape[:2], torch.float32)

    @property
    def idle_slot(self) -> int:
        """One that no sequence has."""
        return len(self.keys[0]) - self.block_size

    @property
    def bytes_per_token(self) -> int:
        """In all layers."""
        cells = [*self.keys, *self.values, *(self.key_scales or ()), *(self.value_scales or ())]
        return sum(cell[0].numel() * cell.element_size() for cell in cells)

    def write(self, layer: int, slots_N: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> None:
        if self.key_scales is None or self.value_scales is None:
            self.keys[layer][slots_N] = k_NGD.to(self.keys[layer].dtype)
            self.values[layer][slots_N] = v_NGD.to(self.values[layer].dtype)
            return
        self.keys[layer][slots_N], self.key_scales[layer][slots_N] = quantized(k_NGD)
        self.values[layer][slots_N], self.value_scales[layer][slots_N] = quantized(v_NGD)

    def read(self, layer: int, slots_L: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, [L, G, D], in the model's dtype."""
        k_LGD, v_LGD = self.keys[layer][slots_L], self.values[layer][slots_L]
        if self.key_scales is None or self.value_scales is None:
            return k_LGD.to(self.dtype), v_LGD.to(self.dtype)
        k_LGD = (k_LGD * self.key_scales[layer][slots_L].unsqueeze(2)).to(self.dtype)
        return k_LGD, (v_LGD * self.value_scales[layer][slots_L].unsqueeze(2)).to(self.dtype)

    def copy(self, copies: Sequence[Copy]) -> None:
        for copy in copies:
            source, target = copy.source * self.block_size, copy.target * self.block_size
            for cells in (self.keys, self.values, self.key_scales or (), self.value_scales or ()):
                for cell in cells:
                    cell[target : target + copy.count] = cell[source : source + copy.count]


def quantized(x_NGD: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [N, G, D] and scales, fp32 [N, G]: the largest magnitude of a token's head becomes 127."""
    x_NGD = x_NGD.float()
    scales_NG = x_NGD.abs().amax(dim=2) / INT8_MAX
    scales_NG = torch.where(scales_NG > 0, scales_NG, 1.0)
    return (x_NGD / scales_NG.unsqueeze(2)).round().to(torch.int8), scales_NG


def head_width(config: Any) -> int:
    """Qwen2's configuration has no width of its own."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
