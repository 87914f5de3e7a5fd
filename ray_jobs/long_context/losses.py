"""The loss by position, and where a method breaks.

Shapes: T texts, K stretches of positions, L tokens of a text, B texts of a batch, S resamplings, H hidden.
"""

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


def spans_of(model: "PreTrainedModel", edges: Sequence[int]) -> list[tuple[int, int]]:
    """Which positions one forward pass over all that stands before them scores: (begin, end).

    One pass scores a whole text, but where frequencies depend on its length: with dynamic scaling each stretch beyond
    the original context is scored as the end of a text, as it would be when that is read.
    """
    if (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") != "dynamic":
        return [(0, edges[-1])]
    original = model.config.max_position_embeddings
    later = [edge for edge in edges if edge > original]
    return list(zip([0, min(original, edges[-1]), *later], [min(original, edges[-1]), *later], strict=False))


@torch.inference_mode()
def text_nlls(
    model: "PreTrainedModel", tokens_TL: Ids, edges: Sequence[int], batch: int, num_real: int, end_of_text: int
) -> Floats:
    """−log p in nats of every token but the first, given all before it: [T, L − 1]; 0 for an end of text, which is not
    scored.

    Args:
        tokens_TL: texts.
        edges: of the stretches of positions, the last the number of targets.
        batch: texts computed at once.
        num_real: tokens of the vocabulary, without the embedding's padding.
    """
    weight_VH = model.get_output_embeddings().weight
    found_TL = np.zeros((tokens_TL.shape[0], edges[-1]))
    for begin, end in spans_of(model, edges):
        set_text_length(model, end)
        for first in range(0, len(tokens_TL), batch):
            tokens_BL = torch.from_numpy(tokens_TL[first : first + batch, : end + 1]).to(model.device)
            hidden_BLH = model.base_model(tokens_BL[:, :-1], use_cache=False).last_hidden_state[:, begin:]
            targets_BL = tokens_BL[:, begin + 1 :]
            targets_BL = targets_BL.masked_fill(targets_BL == end_of_text, IGNORED)
            nll_N = token_nlls(hidden_BLH.flatten(0, 1), weight_VH, targets_BL.flatten(), num_real)
            found_TL[first : first + batch, begin:end] = nll_N.view_as(targets_BL).double().cpu().numpy()
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

    def within(self, length: int) -> int:
        """How many stretches end by `length`."""
        return sum(edge <= length for edge in self.edges[1:])


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


@dataclass(frozen=True)
class Break:
    """The first stretch of positions at which a method is worse than the model was within its training length."""

    begin: int
    end: int
    excess: Loss
    """Nats a token above it, with the interval of the difference over the same texts."""


def first_break(
    sums: Sums, trained: Sums, training_length: int, margin: float, draws_ST: npt.NDArray[np.int64] | None
) -> Break | None:
    """Where the loss is more than `margin` above that of the model as trained, beyond chance; None where nowhere.

    Args:
        sums: of the method.
        trained: of the same model as trained, on the same texts. Within the training length its same stretch is
            compared with, beyond it its last stretch within.
        margin: nats a token.
        draws_ST: resamplings of texts; None goes by the values alone.
    """
    known = trained.within(training_length)
    assert known > 0 and sums.edges[:known] == trained.edges[:known]
    for stretch, (begin, end) in enumerate(zip(sums.edges, sums.edges[1:], strict=False)):
        sides = []
        for side, place in ((sums, stretch), (trained, min(stretch, known - 1))):
            nats_T, tokens_T = side.nats_TK[:, place], side.tokens_TK[:, place]
            sides.append((_mean(nats_T.sum(), tokens_T.sum()), _resampled(nats_T, tokens_T, draws_ST)))
        (value, resampled), (known_value, known_resampled) = sides
        differences = None if resampled is None or known_resampled is None else resampled - known_resampled
        excess = _interval(value - known_value, differences)
        if (excess.value if excess.low is None else excess.low) > margin:
            return Break(begin, end, excess)
    return None
