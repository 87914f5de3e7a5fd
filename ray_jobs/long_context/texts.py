"""Long texts out of held-out documents, which are mostly short.

Documents are laid end to end, each followed by the end-of-text token, as in training, and cut into texts of equal
length, wherever a document begins or ends. So every position sees the same mixture of tokens, and a loss that rises
with the position is the model's, not the text's. What it cannot show is the use of a far context: only as much of it
belongs to a token's own document as `own_context` says.

Shapes: T texts, L tokens of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.heldout import HeldOut

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """What all models and methods are measured on."""

    tokens_TL: Ids
    """One token more than the longest text: the first is context alone."""
    own_TL: Ids
    """How many tokens of its own document stand before a token, within its text."""
    end_of_text: int
    num_documents: int
    """That the texts were cut from."""
    num_tokens: int
    """Of these documents."""


def cut_texts(documents: Sequence[HeldOut], length: int, most: int, end_of_text: int) -> Texts:
    """At most `most` texts of `length` targets, evenly spaced among all.

    Raises:
        ValueError: the documents make less than two.
    """
    pieces = [np.array([end_of_text])]
    for document in documents:
        pieces += [document.tokens, np.array([end_of_text])]
    stream = np.concatenate(pieces).astype(np.int64)
    number = (len(stream) - 1) // length
    num_tokens = sum(len(document.tokens) for document in documents)
    if number < 2:
        raise ValueError(
            f"the {len(documents)} held-out documents hold {num_tokens:,} tokens, less than two texts of {length:,}: "
            "raise tokens.heldout_share or max_documents, or lower lengths"
        )
    places = np.arange(number) if number <= most else np.arange(most) * number // most
    tokens_TL = np.stack([stream[place * length : place * length + length + 1] for place in places])
    return Texts(tokens_TL, _own_context(tokens_TL, end_of_text), end_of_text, len(documents), num_tokens)


def _own_context(tokens_TL: Ids, end_of_text: int) -> Ids:
    places_L = np.arange(tokens_TL.shape[1])
    begins_TL = np.where(tokens_TL == end_of_text, places_L + 1, 0)  # of the document behind an end
    begins_TL = np.maximum.accumulate(begins_TL, axis=1)
    return np.maximum(places_L - begins_TL, 0)


def edges_of(factor: float, training_length: int, buckets: int) -> list[int]:
    """Where stretches of positions begin in a text of `factor` training lengths, and the end of the last: `buckets` of
    them in each training length."""
    return [round(place * training_length / buckets) for place in range(round(factor * buckets) + 1)]
