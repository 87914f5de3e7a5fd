"""Speculative decoding: a draft proposes some tokens, the model computes all of them in one step, and what stands is
distributed as if the model had written alone (Leviathan et al. 2023, arXiv:2211.17192, theorem in appendix A.1; Chen et
al. 2023, arXiv:2302.01318).

Shapes: K proposed tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ray_jobs.inference.decoding import DRAW_ACCEPTED, DRAW_TOKEN, drawn, uniform
from ray_jobs.inference.request import Request


@dataclass(frozen=True)
class Proposal:
    """Tokens that may come next."""

    tokens: tuple[int, ...] = ()
    probs_KV: Tensor | None = None
    """What each was drawn from, after temperature and filters; None where the draft was certain of each."""


class Draft(Protocol):
    """Proposes how texts go on."""

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        """For each request at most so many tokens; none is allowed."""
        ...

    def forget(self, request: Request) -> None:
        """The request is over, or waits again."""
        ...


@dataclass
class Acceptance:
    """How often the first, second, … token of a proposal stood."""

    proposed: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    num_rounds: int = 0
    """Steps of a request with a proposal."""

    def count(self, num_proposed: int, num_accepted: int) -> None:
        self.num_rounds += 1
        missing = num_proposed - len(self.proposed)
        self.proposed += [0] * missing
        self.accepted += [0] * missing
        for place in range(num_proposed):
            self.proposed[place] += 1
            self.accepted[place] += place < num_accepted

    @property
    def rates(self) -> list[float]:
        """By place, the share that stood of what was proposed there."""
        return [accepted / proposed for accepted, proposed in zip(self.accepted, self.proposed, strict=True)]

    @property
    def tokens_per_round(self) -> float:
        """Written in a step with a proposal, on average: accepted ones and the model's own."""
        return 1 + sum(self.accepted) / self.num_rounds if self.num_rounds else 1.0


def verified(probs_kV: Tensor, proposal: Proposal, seed: int, first: int) -> list[int]:
    """The tokens that stand: those of the proposal that are accepted, and one more.

    A token is accepted with probability min(1, p/q). At the first that is not, one is drawn from max(p − q, 0), made
    to sum to 1; behind the last one is drawn from p.

    Args:
        probs_kV: the model's distributions p, at the K proposed places and the one behind them: [K + 1, V].
        proposal: K tokens.
        seed: of the request.
        first: how many tokens its answer has.
    """
    count = len(proposal.tokens)
    places, tokens = torch.arange(count), torch.tensor(proposal.tokens, dtype=torch.int64, device=probs_kV.device)
    p = probs_kV[places, tokens].tolist()
    q = [1.0] * count if proposal.probs_KV is None else proposal.probs_KV[places, tokens].tolist()
    for place in range(count):
        if uniform(seed, first + place, DRAW_ACCEPTED) * q[place] >= p[place]:
            left_V = probs_kV[place].clone()
            if proposal.probs_KV is None:
                left_V[tokens[place]] = 0
            else:
                left_V = (left_V - proposal.probs_KV[place]).clamp_min(0)
            if not left_V.any():  # p and q are equal but for rounding
                left_V = probs_kV[place]
            return [*proposal.tokens[:place], _one(left_V, seed, first + place)]
    return [*proposal.tokens, _one(probs_kV[count], seed, first + count)]


def _one(probs_V: Tensor, seed: int, step: int) -> int:
    return int(drawn(probs_V.unsqueeze(0), [uniform(seed, step, DRAW_TOKEN)]))
