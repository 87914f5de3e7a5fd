"""Perplexity and bits per byte of a model on whole documents, each token scored once.

Shapes: B windows of a batch, L tokens of a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ray_jobs.model.loss import token_nlls
from ray_jobs.model.scoring import document_rows, summed_nlls
from ray_jobs.tokenizer.heldout import HeldOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def document_nlls(
    model: "PreTrainedModel", documents: Sequence[HeldOut], first: int, context: int, stride: int, batch: int
) -> np.ndarray:
    """−log p of each document in nats, float64 [documents].

    Args:
        model: a causal language model of transformers.
        documents: what is scored.
        first: the special token that stands before a document.
        context: tokens that the model sees at once.
        stride: by which the window moves; at most `context`.
        batch: windows computed at once.
    """
    weight = model.get_output_embeddings().weight

    def nlls(inputs_BL: Tensor, targets_BL: Tensor) -> Tensor:
        hidden_BLH = model.base_model(inputs_BL, use_cache=False).last_hidden_state
        return token_nlls(hidden_BLH.flatten(0, 1), weight, targets_BL.flatten()).view_as(targets_BL)

    rows = [
        row
        for place, document in enumerate(documents)
        for row in document_rows(document.tokens, first, context, stride, place)
    ]
    return summed_nlls(nlls, rows, len(documents), batch, first, model.device)


@dataclass(frozen=True)
class Score:
    """One model on the held-out documents."""

    perplexity: float
    """A token."""
    bits_per_byte: float
    interval: tuple[float, float] | None
    """95% interval of bits per byte over documents; None where it was not asked for."""

    def to_json(self) -> dict[str, float | list[float] | None]:
        interval = None if self.interval is None else [round(bound, 4) for bound in self.interval]
        return {
            "perplexity": round(self.perplexity, 4),
            "bits_per_byte": round(self.bits_per_byte, 4),
            "bits_per_byte_95": interval,
        }


def score(nlls: np.ndarray, documents: Sequence[HeldOut], draws: np.ndarray | None) -> Score:
    """From each document's −log p in nats; `draws` as `bootstrap_draws` makes them."""
    num_bytes = np.array([document.num_bytes for document in documents], dtype=np.float64)
    num_tokens = sum(len(document.tokens) for document in documents)
    bits = nlls / math.log(2)
    interval = None
    if draws is not None:
        low, high = np.quantile((draws @ bits) / (draws @ num_bytes), [0.025, 0.975])
        interval = (float(low), float(high))
    return Score(math.exp(nlls.sum() / num_tokens), float(bits.sum() / num_bytes.sum()), interval)
