"""−log p of texts under a model, each token scored once.

A document is scored by a window that moves by `stride`: after the first window, a token has at least context − stride
tokens before it. The first token is predicted from the special token that ends the document before, as in training.
Special tokens are context, never scored.

Shapes: B rows of a batch, L tokens of the longest of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ray_jobs.model.loss import IGNORED

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """`length` inputs of a document from `start` on, of which the last `num_scored` targets are scored."""

    start: int
    length: int
    num_scored: int


def windows_of(length: int, context: int, stride: int) -> Iterator[Window]:
    """Windows over a document of `length` targets, which together score each exactly once."""
    scored = start = 0
    while scored < length:
        end = min(start + context, length)
        yield Window(start, end - start, end - scored)
        scored, start = end, start + stride


@dataclass(frozen=True)
class Row:
    """A sequence that is scored, and to which sum its targets add."""

    inputs: Ids
    targets: Ids
    """IGNORED where one is not scored."""
    place: int


def document_rows(tokens: Ids, first: int, context: int, stride: int, place: int) -> Iterator[Row]:
    """The windows of a document, before which the special token `first` stands."""
    inputs = np.concatenate([[first], tokens[:-1]])
    for window in windows_of(len(tokens), context, stride):
        end = window.start + window.length
        targets = tokens[window.start : end].copy()
        targets[: window.length - window.num_scored] = IGNORED
        yield Row(inputs[window.start : end], targets, place)


def continuation_row(context_tokens: Ids, continuation: Ids, first: int, context: int, place: int) -> Row:
    """A text of which only the continuation is scored; of one longer than `context` the beginning is cut off."""
    tokens = np.concatenate([[first], context_tokens, continuation])[-(context + 1) :]
    targets = tokens[1:].copy()
    targets[: max(0, len(targets) - len(continuation))] = IGNORED
    return Row(tokens[:-1], targets, place)


def summed_nlls(
    nlls: Callable[[Tensor, Tensor], Tensor],
    rows: Sequence[Row],
    num_places: int,
    batch: int,
    padding: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> npt.NDArray[np.float64]:
    """−log p in nats, summed by the rows' places: float64 [num_places].

    Args:
        nlls: inputs_BL, targets_BL → −log p of every target, fp32 [B, L]. With several ranks it may be collective:
            every rank calls it equally often.
        rows: what is scored.
        batch: rows computed at once.
        padding: the token that fills rows up. It stands behind what is scored, and is not seen from there.
        rank, world: which share of the batches is computed here; the caller adds those of all ranks up.
    """
    ordered = sorted(rows, key=lambda row: len(row.inputs))  # little padding; the order is stable, so the sums are too
    groups = [ordered[begin : begin + batch] for begin in range(0, len(ordered), batch)]
    totals = np.zeros(num_places)
    for number in range(rank, -(-len(groups) // world) * world, world):
        group = groups[min(number, len(groups) - 1)]
        inputs_BL = np.full((len(group), len(group[-1].inputs)), padding, dtype=np.int64)
        targets_BL = np.full_like(inputs_BL, IGNORED)
        for place, row in enumerate(group):
            inputs_BL[place, : len(row.inputs)] = row.inputs
            targets_BL[place, : len(row.targets)] = row.targets
        nll_BL = nlls(torch.from_numpy(inputs_BL).to(device), torch.from_numpy(targets_BL).to(device))
        if number < len(groups):  # else only so that all ranks make as many calls
            nll_B = nll_BL.double().sum(dim=1).cpu().numpy()
            np.add.at(totals, [row.place for row in group], nll_B)
    return totals


def bootstrap_draws(num_texts: int, samples: int, seed: int) -> np.ndarray | None:
    """How often each text is drawn in each resampling (Efron 1979): [samples, texts]; None for no samples.

    The same draws serve all models, so that their intervals compare like with like.
    """
    if samples == 0:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.multinomial(num_texts, np.full(num_texts, 1.0 / num_texts), size=samples)
