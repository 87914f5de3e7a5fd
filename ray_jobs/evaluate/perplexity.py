"""Perplexity and bits per byte of a model on whole documents, each token scored once.

A document is scored by a window that moves by `stride`: after the first window, a token has at least context − stride
tokens before it. The first token is predicted from the special token that ends the document before, as in training.
Special tokens are context, never scored.

Shapes: B windows of a batch, L tokens of a window, N = B · L, H hidden.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ray_jobs.model.loss import IGNORED, token_nlls

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class HeldOut:
    """A document's tokens, none of them special, and the bytes of its text in UTF-8."""

    id: str
    tokens: np.ndarray
    num_bytes: int


@dataclass(frozen=True)
class Window:
    """`length` inputs of a document from `start` on, of which the last `num_scored` targets are scored."""

    document: int
    start: int
    length: int
    num_scored: int


def windows_of(length: int, context: int, stride: int, document: int = 0) -> Iterator[Window]:
    """Windows over a document of `length` targets, which together score each exactly once."""
    scored = start = 0
    while scored < length:
        end = min(start + context, length)
        yield Window(document, start, end - start, end - scored)
        scored, start = end, start + stride


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
    device = model.device
    weight = model.get_output_embeddings().weight
    inputs = [np.concatenate([[first], document.tokens[:-1]]) for document in documents]
    windows = [
        window
        for i, document in enumerate(documents)
        for window in windows_of(len(document.tokens), context, stride, i)
    ]
    windows.sort(key=lambda window: window.length)  # little padding; the order is stable, so the sums are too
    totals = np.zeros(len(documents))
    for begin in range(0, len(windows), batch):
        group = windows[begin : begin + batch]
        inputs_BL = np.full((len(group), group[-1].length), first, dtype=np.int64)
        targets_BL = np.full_like(inputs_BL, IGNORED)
        for row, window in enumerate(group):
            end = window.start + window.length
            inputs_BL[row, : window.length] = inputs[window.document][window.start : end]
            scored = slice(window.length - window.num_scored, window.length)
            targets_BL[row, scored] = documents[window.document].tokens[end - window.num_scored : end]
        hidden_BLH = model.base_model(torch.from_numpy(inputs_BL).to(device), use_cache=False).last_hidden_state
        nll_N = token_nlls(hidden_BLH.flatten(0, 1), weight, torch.from_numpy(targets_BL).to(device).flatten())
        nll_B = nll_N.double().view(inputs_BL.shape).sum(dim=1).cpu().numpy()
        np.add.at(totals, [window.document for window in group], nll_B)
    return totals


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


def bootstrap_draws(num_documents: int, samples: int, seed: int) -> np.ndarray | None:
    """How often each document is drawn in each resampling (Efron 1979): [samples, documents]; None for no samples.

    The same draws serve all models, so that their intervals compare like with like.
    """
    if samples == 0:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.multinomial(num_documents, np.full(num_documents, 1.0 / num_documents), size=samples)
