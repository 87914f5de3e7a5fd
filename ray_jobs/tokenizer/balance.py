"""How much of each language's text goes into the sample, and how much is held out to measure on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_HELD_OUT = 0.05
"""Of a language's documents."""


@dataclass(frozen=True)
class LanguageText:
    """What a corpus has of a language."""

    bytes: int
    first_place: float
    last_place: float
    """The lowest and the highest of its texts' places, which are random numbers in [0, 1). Copies of a text share one:
    a language of a single text has equal ones."""

    def to_json(self) -> list[Any]:
        return [self.bytes, self.first_place, self.last_place]


@dataclass(frozen=True)
class Share:
    """A document of the language is in the sample if its place is below `sampled`, held out if it is not below
    `held_out`, which is no less."""

    sampled: float
    held_out: float


def added_up(parts: Iterable[Mapping[str, list[Any]]]) -> dict[str, LanguageText]:
    """The sum over shards of `LanguageText.to_json` by language."""
    total: dict[str, LanguageText] = {}
    for part in parts:
        for language, (size, first_place, last_place) in part.items():
            before = total.get(language, LanguageText(0, 1.0, 0.0))
            total[language] = LanguageText(
                before.bytes + size, min(before.first_place, first_place), max(before.last_place, last_place)
            )
    return dict(sorted(total.items()))


def shares(corpus: Mapping[str, LanguageText], sample_bytes: int, alpha: float, heldout_bytes: int) -> dict[str, Share]:
    """The share of each language that has text.

    Of a language with two texts or more at least one is held out, unless `heldout_bytes` is 0.
    """
    texts = {language: text for language, text in corpus.items() if text.bytes}
    held_out = {}
    for language, text in texts.items():
        can_spare = heldout_bytes and text.first_place < text.last_place
        first = 1 - min(MOST_HELD_OUT, heldout_bytes / text.bytes)
        held_out[language] = min(first, text.last_place) if can_spare else 1.0
    available = {language: text.bytes * held_out[language] for language, text in texts.items()}
    total = sum(text.bytes for text in texts.values())
    weights = {language: (text.bytes / total) ** alpha for language, text in texts.items()}
    quotas = filled(weights, available, sample_bytes)
    # Where all that is available is taken, the quotient may be rounded to more than it was made of.
    return {
        language: Share(min(quotas[language] / text.bytes, held_out[language]), held_out[language])
        for language, text in texts.items()
    }


def filled(weights: Mapping[str, float], available: Mapping[str, float], size: float) -> dict[str, float]:
    """`size` shared out by weights, to each no more than what is available; what one is short of goes to the others."""
    quotas: dict[str, float] = {}
    left = dict(weights)
    while left:
        unit = (size - sum(quotas.values())) / sum(left.values())
        short = [name for name in left if left[name] * unit >= available[name]]
        if not short:
            return quotas | {name: weight * unit for name, weight in left.items()}
        for name in short:
            quotas[name] = available[name]
            del left[name]
    return quotas
