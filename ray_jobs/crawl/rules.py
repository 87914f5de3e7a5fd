"""The rules that decide which documents are kept, each with its threshold and whose it is."""

from dataclasses import dataclass

from configs.crawl import FilterSpec
from ray_jobs.crawl.scores import Scores

SOURCES = {
    "language": "the languages that the recipe asks for, by fastText lid.176",
    "language_score": "FineWeb (Penedo et al. 2024, section 3.3): at least .65",
    "min_words": "Gopher (Rae et al. 2021, appendix A.1.1): at least 50 words",
    "max_words": "Gopher (Rae et al. 2021, appendix A.1.1): at most 100,000 words",
    "symbol_ratio": "Gopher (Rae et al. 2021, appendix A.1.1): at most .1 hash signs or ellipses a word",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first rule that a document breaks."""

    rule: str
    value: float | None
    threshold: float | None
    """Both None where nothing is measured; the threshold alone where it is no number."""


def judge(scores: Scores, spec: FilterSpec) -> Verdict | None:
    """None where the document is kept."""
    if spec.languages and scores.language not in spec.languages:
        return Verdict("language", scores.language_score, None)
    if scores.language_score < spec.min_language_score:
        return Verdict("language_score", scores.language_score, spec.min_language_score)
    if scores.num_words < spec.min_words:
        return Verdict("min_words", scores.num_words, spec.min_words)
    if scores.num_words > spec.max_words:
        return Verdict("max_words", scores.num_words, spec.max_words)
    if scores.symbol_ratio > spec.max_symbol_ratio:
        return Verdict("symbol_ratio", scores.symbol_ratio, spec.max_symbol_ratio)
    return None
