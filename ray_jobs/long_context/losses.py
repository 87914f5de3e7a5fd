"""The loss by position, and where a method breaks.

What a method is compared with is the same model, as trained, on the same tokens with no more than a training length of
them in sight: reading more than that should not make it worse.

Shapes: T texts, K stretches of positions, L tokens of a text, B texts of a batch, S resamplings, H hidden.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ray_jobs.long_context.texts import Ids
from ray_jobs.model.loss import IGNORED, token_nlls
from ray_jobs.model.positions import set_text_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """One forward pass over the tokens from `first` to `end`, which scores those from `begin` on."""

    first: int
    begin: int
    end: int


def spans_of(model: "PreTrainedModel", edges: Sequence[int], window: int | None = None) -> list[Span]:
    """The passes that score a text.

    One does, but where frequencies depend on the length: with dynamic scaling each stretch beyond the original context
    is scored as the end of a text, as it would be when that is read. With a `window`, which is one of the edges or
    beyond the last, each stretch is scored as the end of so many tokens, and sees none before them.
    """
    dynamic = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") == "dynamic"
    if window is None and not dynamic:
        return [Span(0, 0, edges[-1])]
    once = min(window or model.config.max_position_embeddings, edges[-1])
    ends = [once, *(edge for edge in edges if edge > once)]
    later = [Span(end - window if window else 0, begin, end) for begin, end in itertools.pairwise(ends)]
    return [Span(0, 0, once), *later]


@torch.inference_mode()
def text_nlls(
    model: "PreTrainedModel",
    tokens_TL: Ids,
    edges: Sequence[int],
    batch: int,
    num_real: int,
    end_of_text: int,
    window: int | None = None,
) -> Floats:
    """−log p in nats of every token but the first, given all before it: [T, L − 1]; 0 for an end of text, which is not
    scored.

    Args:
        tokens_TL: texts.
        edges: of the stretches of positions, the last the number of targets.
        batch: texts computed at once.
        num_real: tokens of the vocabulary, without the embedding's padding.
        end_of_text: the token that is context alone.
        window: tokens that are seen at most; None is all.
    """
    weight_VH = model.get_output_embeddings().weight
    found_TL = np.zeros((tokens_TL.shape[0], edges[-1]))
    for span in spans_of(model, edges, window):
        set_text_length(model, span.end - span.first)
        for first in range(0, len(tokens_TL), batch):
            tokens_BL = torch.from_numpy(tokens_TL[first : first + batch, span.first : span.end + 1]).to(model.device)
            hidden_BLH = model.base_model(tokens_BL[:, :-1], use_cache=False).last_hidden_state
            hidden_BLH = hidden_BLH[:, span.begin - span.first :]
            targets_BL = tokens_BL[:, span.begin - span.first + 1 :]
            targets_BL = targets_BL.masked_fill(targets_BL == end_of_text, IGNORED)
            nll_N = token_nlls(hidden_BLH.flatten(0, 1), weight_VH, targets_BL.flatten(), num_real)
            found_TL[first : first + batch, span.begin : span.end] = nll_N.view_as(targets_BL).double().cpu().numpy()
    return found_TL


@dataclass(frozen=True)
class Sums:
    """Over the scored tokens of each stretch in each text."""

    edges: tuple[int, ...]
    nats_TK: Floats
    tokens_TK: Floats

    @classmethod
    def of(cls, nlls_TL: Floats, targets_TL: Ids, edges: Sequence[int], end_of_text: int) -> "Sums":
        scored_TL = (targets_TL != end_of_text).astype(np.float64)
        return cls(
            tuple(edges), np.add.reduceat(nlls_TL, edges[:-1], axis=1), np.add.reduceat(scored_TL, edges[:-1], axis=1)
        )

    def to_table(self) -> pa.Table:
        """A row for each stretch of each text."""
        num_texts, num_stretches = self.nats_TK.shape
        return pa.table(
            {
                "text": pa.array(np.repeat(np.arange(num_texts), num_stretches)),
                "begin": pa.array(np.tile(self.edges[:-1], num_texts)),
                "end": pa.array(np.tile(self.edges[1:], num_texts)),
                "nats": pa.array(self.nats_TK.ravel()),
                "tokens": pa.array(self.tokens_TK.ravel().astype(np.int64)),
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> "Sums":
        rows = {name: table[name].to_numpy() for name in ("text", "end", "nats", "tokens")}
        num_texts = int(rows["text"].max()) + 1
        ends = rows["end"][: table.num_rows // num_texts].tolist()
        nats, tokens = (rows[name].astype(np.float64).reshape(num_texts, -1) for name in ("nats", "tokens"))
        return cls((0, *ends), nats, tokens)


@dataclass(frozen=True)
class Loss:
    """Nats a token, with the 95% interval over texts where there are resamplings."""

    value: float
    low: float | None
    high: float | None


def loss_of(sums: Sums, stretches: slice, draws_ST: npt.NDArray[np.int64] | None) -> Loss:
    """The mean over these stretches."""
    nats_T, tokens_T = sums.nats_TK[:, stretches].sum(axis=1), sums.tokens_TK[:, stretches].sum(axis=1)
    return _interval(_mean(nats_T.sum(), tokens_T.sum()), _resampled(nats_T, tokens_T, draws_ST))


def _mean(nats: Floats, tokens: Floats) -> Floats:
    """Not a number where nothing was scored."""
    return np.divide(nats, tokens, out=np.full_like(np.asarray(nats, dtype=np.float64), np.nan), where=tokens > 0)


def _resampled(nats_T: Floats, tokens_T: Floats, draws_ST: npt.NDArray[np.int64] | None) -> Floats | None:
    return None if draws_ST is None else _mean(draws_ST @ nats_T, draws_ST @ tokens_T)


def _interval(value: Floats, resampled_S: Floats | None) -> Loss:
    if resampled_S is None:
        return Loss(float(value), None, None)
    low, high = np.nanquantile(resampled_S, [0.025, 0.975])
    return Loss(float(value), float(low), float(high))


def excess_of(sums: Sums, cut: Sums, stretch: int, draws_ST: npt.NDArray[np.int64] | None) -> Loss:
    """How much worse a stretch is than the same tokens read with `cut`'s context, with the interval of the difference:
    both are of the same texts, so that how hard a text is does not blur it."""
    assert sums.edges == cut.edges[: len(sums.edges)]
    sides = [(side.nats_TK[:, stretch], side.tokens_TK[:, stretch]) for side in (sums, cut)]
    (value, known), (resampled, known_resampled) = (
        [_mean(nats_T.sum(), tokens_T.sum()) for nats_T, tokens_T in sides],
        [_resampled(nats_T, tokens_T, draws_ST) for nats_T, tokens_T in sides],
    )
    differences = None if resampled is None or known_resampled is None else resampled - known_resampled
    return _interval(value - known, differences)


def first_break(excesses: Sequence[Loss], margin: float) -> int | None:
    """The first stretch that is worse by more than the margin, beyond chance; None where none is."""
    for stretch, excess in enumerate(excesses):
        if (excess.value if excess.low is None else excess.low) > margin:
            return stretch
    return None
