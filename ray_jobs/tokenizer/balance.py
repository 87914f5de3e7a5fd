"""How much of each language's text goes into the sample, and how much is held out to measure on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_HELD_OUT = 0.05
"""Of a language's documents."""


@dataclass(frozen=True)
class LanguageText:
    """What a corpus has of a language."""

    documents: int
    bytes: int
    last_place: float
    """The highest of its documents' places, which are random numbers in [0, 1)."""

    def to_json(self) -> list[Any]:
        return [self.documents, self.bytes, self.last_place]


@dataclass(frozen=True)
class Share:
    """A document of the language is in the sample if its place is below `sampled`, held out if it is not below
    `held_out`."""

    sampled: float
    held_out: float


def added_up(parts: Iterable[Mapping[str, list[Any]]]) -> dict[str, LanguageText]:
    """The sum over shards of `LanguageText.to_json` by language."""
    total: dict[str, LanguageText] = {}
    for part in parts:
        for language, (documents, size, last_place) in part.items():
            before = total.get(language, LanguageText(0, 0, 0.0))
            total[language] = LanguageText(
                before.documents + documents, before.bytes + size, max(before.last_place, last_place)
            )
    return dict(sorted(total.items()))


def shares(corpus: Mapping[str, LanguageText], sample_bytes: int, alpha: float, heldout_bytes: int) -> dict[str, Share]:
    """The share of each language that has text.

    Of a language with two documents or more at least one is held out, unless `heldout_bytes` is 0.
    """
    texts = {language: text for language, text in corpus.items() if text.bytes}
    held_out = {}
    for language, text in texts.items():
        first = 1 - min(MOST_HELD_OUT, heldout_bytes / text.bytes)
        lone = heldout_bytes and text.documents > 1
        held_out[language] = min(first, text.last_place) if lone else first if text.documents > 1 else 1.0
    available = {language: text.bytes * held_out[language] for language, text in texts.items()}
    total = sum(text.bytes for text in texts.values())
    weights = {language: (text.bytes / total) ** alpha for language, text in texts.items()}
    quotas = filled(weights, available, sample_bytes)
    return {language: Share(quotas[language] / texts[language].bytes, held_out[language]) for language in texts}


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
