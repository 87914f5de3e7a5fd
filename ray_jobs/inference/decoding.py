"""From logits to the next tokens of many requests at once, each decoding in its own way.

What a request gets depends on its own logits, settings and seed alone, not on the requests beside it: filters work row
by row, tokens are drawn in the order of their ids, and the random number of a step is a hash of seed and step.

Shapes: R rows (one a request), V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.inference import DecodingSpec

# splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"): increment and multipliers.
GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK_64 = (1 << 64) - 1
# The numbers that one token may take: a token is drawn, a draft draws one, it is accepted.
DRAW_TOKEN, DRAW_DRAFT, DRAW_ACCEPTED = range(3)


@dataclass(frozen=True)
class Rows:
    """The settings of some requests as tensors; made anew only when the requests change."""

    temperature_R1: Tensor
    """1 for greedy rows, which do not use it."""
    greedy_R: Tensor
    top_k_R1: Tensor
    top_p_R1: Tensor
    log_min_p_R1: Tensor
    penalty_R1: Tensor
    filters: bool
    """Whether any row keeps less than the whole vocabulary."""
    penalises: bool
    draws: bool
    """Whether any row is not greedy."""

    @classmethod
    def of(cls, specs: Sequence[DecodingSpec], num_tokens: int, device: torch.device) -> "Rows":
        def column(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1)

        sampled = [spec for spec in specs if not spec.greedy]
        return cls(
            column([1.0 if spec.greedy else spec.temperature for spec in specs]),
            torch.tensor([spec.greedy for spec in specs], device=device),
            column([min(spec.top_k or num_tokens, num_tokens) for spec in specs], torch.int64),
            # Sums of probabilities are rounded: 1 itself could leave out the last ones.
            column([spec.top_p if spec.top_p < 1 else math.inf for spec in specs]),
            column([spec.min_p for spec in specs]).log(),
            column([spec.repetition_penalty for spec in specs]),
            filters=any(spec.top_k or spec.top_p < 1 or spec.min_p for spec in sampled),
            penalises=any(spec.repetition_penalty != 1 for spec in specs),
            draws=bool(sampled),
        )


def penalised(logits_RV: Tensor, seen_RV: Tensor, rows: Rows) -> Tensor:
    """Logits after the repetition penalty; `seen_RV` is true where a token stands in the row's prompt or answer."""
    lowered_RV = torch.where(logits_RV > 0, logits_RV / rows.penalty_R1, logits_RV * rows.penalty_R1)
    return torch.where(seen_RV, lowered_RV, logits_RV)


def probabilities(logits_RV: Tensor, rows: Rows) -> Tensor:
    """What each row draws its next token from, fp32: after temperature and filters; one for a greedy row's likeliest.

    `logits_RV` are after the repetition penalty.
    """
    best_R = logits_RV.argmax(dim=1)
    if not rows.draws:
        return torch.zeros_like(logits_RV, dtype=torch.float32).scatter_(1, best_R.unsqueeze(1), 1.0)
    scaled_RV = logits_RV.float() / rows.temperature_R1
    if rows.filters:
        scaled_RV = _filtered(scaled_RV, rows)
    probs_RV = scaled_RV.softmax(dim=1)
    certain_RV = torch.zeros_like(probs_RV).scatter_(1, best_R.unsqueeze(1), 1.0)
    return torch.where(rows.greedy_R.unsqueeze(1), certain_RV, probs_RV)


def _filtered(scaled_RV: Tensor, rows: Rows) -> Tensor:
    """−∞ where top-k, top-p or min-p leave a token out, each by what those before it left."""
    sorted_RV, order_RV = scaled_RV.sort(dim=1, descending=True, stable=True)
    least_R1 = sorted_RV.gather(1, rows.top_k_R1 - 1)
    sorted_RV = sorted_RV.masked_fill(sorted_RV < least_R1, -torch.inf)
    probs_RV = sorted_RV.softmax(dim=1)
    before_RV = probs_RV.cumsum(dim=1) - probs_RV
    out_RV = before_RV >= rows.top_p_R1
    out_RV |= sorted_RV < sorted_RV[:, :1] + rows.log_min_p_R1
    out_RV[:, 0] = False
    sorted_RV = sorted_RV.masked_fill(out_RV, -torch.inf)
    return torch.empty_like(scaled_RV).scatter_(1, order_RV, sorted_RV)


def drawn(probs_RV: Tensor, uniforms: Sequence[float] | Tensor) -> Tensor:
    """A token for each row, int64 [R]: the first at which the cumulated probability, by token id, exceeds the row's
    number in [0, 1). One of probability 0 never is."""
    cumulated_RV = probs_RV.double().cumsum(dim=1)
    uniforms_R = torch.as_tensor(uniforms, dtype=torch.float64, device=probs_RV.device)
    wanted_R1 = uniforms_R.unsqueeze(1) * cumulated_RV[:, -1:]
    return torch.searchsorted(cumulated_RV, wanted_R1, right=True).squeeze(1).clamp_max(probs_RV.shape[1] - 1)


def log_probabilities(
    logits_RV: Tensor, tokens: Sequence[int], count: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """For each row the natural logarithm of its token's probability, and the `count` likeliest tokens with theirs, by
    the logits as they are."""
    logprobs_RV = logits_RV.log_softmax(dim=1)
    chosen_R1 = logprobs_RV.gather(1, torch.tensor(tokens, device=logits_RV.device).unsqueeze(1))
    top = logprobs_RV.topk(min(count, logits_RV.shape[1]), dim=1)
    rows = zip(chosen_R1[:, 0].tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
    return [(chosen, list(zip(tokens, values, strict=True))) for chosen, tokens, values in rows]


def uniform(seed: int, step: int, draw: int = DRAW_TOKEN) -> float:
    """A number in [0, 1), of 53 bits: the same for the same arguments, on every machine.

    Args:
        seed: of the request.
        step: the answer's token, from 0.
        draw: which of the numbers that this token takes; speculative decoding takes several.
    """
    return (_mixed(_mixed(_mixed(seed) + step) + draw) >> 11) / 2**53


def _mixed(number: int) -> int:
    number = (number + GOLDEN) & MASK_64
    number = ((number ^ (number >> 30)) * MIX_1) & MASK_64
    number = ((number ^ (number >> 27)) * MIX_2) & MASK_64
    return number ^ (number >> 31)
