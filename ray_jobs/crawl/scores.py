"""What is measured of a document's text. Measuring is apart from deciding, which `rules` does."""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.crawl import FilterSpec
from ray_jobs.crawl.languages import identify, second_opinion
from ray_jobs.crawl.statistics import Statistics, measure_texts


@dataclass(frozen=True, slots=True)
class Scores:
    language: str
    """lid.176's code, or the model's label where it has none; empty where the model knows none."""
    language_score: float
    """The model's probability, 0 to 1."""
    statistics: Statistics
    language_label: str = ""
    """What the model itself calls the language, where that is something else."""
    second_language: str | None = None
    """By the second opinion, where one is asked for."""
    removed_words: float | None = None
    """Share of words that line corrections took, where they are asked for: the rest was measured."""


def measure(
    texts: Sequence[str], spec: FilterSpec, removed_words: Sequence[float | None] | None = None
) -> list[Scores]:
    """Scores of each of the texts.

    Many at a time: lid.176's tables stay in the processor's cache, from which parsing the next page would drive them.
    That makes a prediction 2.5 times as fast.
    """
    told = [identify(text, spec.language_model) for text in texts]
    second = second_opinion(spec.second_opinion) if spec.second_opinion else None
    others = [second(text) if second else None for text in texts]
    removed = [None] * len(texts) if removed_words is None else removed_words
    return [
        Scores(one.language, one.probability, measured, "" if one.label == one.language else one.label, other, lost)
        for one, other, lost, measured in zip(told, others, removed, measure_texts(texts), strict=True)
    ]
