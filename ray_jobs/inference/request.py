"""A prompt and what is written behind it."""

from dataclasses import dataclass, field
from typing import Literal

from configs.inference import DecodingSpec
from ray_jobs.inference.blocks import Table

Reason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenLogprobs:
    """Of one written token, by the model's own distribution: natural logarithms."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens, the likeliest first."""


@dataclass(eq=False)
class Request:
    """Under way in an engine, or done."""

    id: int
    prompt: tuple[int, ...]
    spec: DecodingSpec
    answer: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """One for each token of the answer, where the spec asks for them."""
    reason: Reason | None = None
    """Why it ended: "stop" at an end-of-text token, which is not part of the answer, or a stop text; "length" at
    max_new_tokens. None while it is under way."""
    text: str | None = None
    """The answer up to a stop text, where it ended at one."""
    table: Table = field(default_factory=Table)
    siblings: tuple["Request", ...] = ()
    """Others that answer the same prompt, and begin when its keys and values stand."""

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.answer]

    @property
    def length(self) -> int:
        """Of prompt and answer, in tokens."""
        return len(self.prompt) + len(self.answer)
