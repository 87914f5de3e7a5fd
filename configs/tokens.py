"""The corpus as tokens."""

import difflib
from collections.abc import Collection, Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from configs.base import Spec

DOCUMENTS = "documents"
"""The slot that takes the documents of the only source, and what that source is called; `documents.NAME` takes those of
one of several."""


def source_names(slots: Iterable[str]) -> dict[str, str]:
    """Slot -> source, in the order of slots' names. A slot that takes the only source lends it its own name."""
    sources = (slot for slot in slots if slot.partition(".")[0] == DOCUMENTS)
    return {slot: slot.partition(".")[2] or slot for slot in sorted(sources)}


class TokensSpec(Spec):
    """Documents as token ids, each followed by the end-of-text token, in a training and a held-out part."""

    node: ClassVar[str] = "tokens"
    version: ClassVar[int] = 2

    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(default_factory=dict)
    """Source -> how often the training part holds each of its documents: 1 where nothing is said, which mixes sources
    as their sizes are. A weight of 2.25 repeats every document twice, and a quarter of them, chosen by a hash of their
    id, once more; 0.5 takes one half of them and 0 leaves the source out of both parts. It holds for documents, and of
    every file up to one document: n documents of a file become n times the weight, rounded up or down so that their
    mean over files is exact. A greater weight keeps all that a smaller one takes. For a share s of the tokens, the
    weight is s times the tokens of all sources over those of this one, as the statistics of the natural mixture give
    them. A held-out document stands once, whatever its source weighs."""
    heldout_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of documents that training never sees. They are chosen by a hash of the text, so that copies of a text, in
    whatever source, are all held out or none is; and once held out, a text is so in every later crawl."""
    seed: int = Field(default=1, ge=0)
    """Of both choices, and of the order of documents within a shard of the training part."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""

    def check_inputs(self, slots: Collection[str]) -> None:
        """Raises ValueError where a weight is of no source."""
        sources = list(source_names(slots).values())
        for name in self.weights:
            if name not in sources:
                close = difflib.get_close_matches(name, sources, 1)
                meant = f"did you mean {close[0]!r}? There" if close else "there"
                raise ValueError(f"weights names {name!r}, which is no source: {meant} are: {', '.join(sources)}")
