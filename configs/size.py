"""Sizes that follow from a ModelSpec alone: parameters, FLOPs, and the share of a device's peak that a speed is.

Needs no torch, so that plans and estimates can use it.
"""

from dataclasses import dataclass

from configs.devices import PEAK_FLOPS
from configs.model import ModelSpec


@dataclass(frozen=True)
class ModelSize:
    """Counts of one model."""

    parameters: int
    """All of them; a tied matrix counts once."""
    matrix_parameters: int
    """Those multiplied for every token: all but the input embedding. A tied matrix counts as the head."""
    flops_per_token: int
    """Of training, forward and backward, for one token of a sequence of the given length."""


def model_size(spec: ModelSpec, num_tokens: int, sequence_length: int) -> ModelSize:
    """Parameters, and training FLOPs a token by the usual convention for model FLOPs utilisation:

    6 · (parameters without the input embedding) + 12 · layers · heads · head_dim · sequence_length

    Attention's causal half is not subtracted, and recomputation is not counted (Chowdhery et al. 2022, appendix B).
    """
    width = spec.head_width
    attention = spec.hidden * width * (2 * spec.heads + 2 * spec.num_kv_heads)
    norms = 2 * spec.hidden + (2 * width if spec.architecture == "qwen3" else 0)
    mlp = spec.hidden * spec.intermediate * (2 if spec.architecture == "mpt" else 3)
    layer = attention + mlp + norms
    embedding = spec.padded_vocabulary(num_tokens) * spec.hidden
    inner = spec.layers * layer + spec.hidden
    parameters = inner + embedding * (1 if spec.tied_embeddings else 2)
    flops = 6 * (inner + embedding) + 12 * spec.layers * spec.heads * width * sequence_length
    return ModelSize(parameters, inner + embedding, flops)


def peak_flops(device_name: str) -> float | None:
    """The device's dense bf16 peak in FLOP/s; None where it is not published (every CPU)."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in device_name), None)
