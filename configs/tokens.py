"""The corpus as tokens."""

from typing import ClassVar

from pydantic import Field

from configs.base import Spec


class TokensSpec(Spec):
    """Documents as token ids, each followed by the end-of-text token, in a training and a held-out part."""

    node: ClassVar[str] = "tokens"
    version: ClassVar[int] = 1

    heldout_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of documents, chosen by a hash of their id, that training never sees."""
    seed: int = Field(default=1, ge=0)
    """Of that choice."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
