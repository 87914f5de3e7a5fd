"""Which documents are kept, by their scores. Deciding needs no text, so an audit is enough to decide again."""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.quality import Bucket, Limits, QualitySpec
from configs.toxicity import ToxicWords

CCNET = "CCNet (Wenzek et al. 2020; PerplexityBucket): head, middle and tail by percentile of perplexity"


DCLM = "DCLM (Li et al. 2024, section 4.4): probability of being like the reference, by a fastText-style classifier"
TOXICITY = "Dolma (Soldaini et al. 2024): probability of being abusive, by a fastText-style classifier"
TOXIC_WORDS = "C4 (Raffel et al. 2020, section 2.2), which drops pages with any word of a list"


@dataclass(frozen=True, slots=True)
class Scores:
    """What is measured of one document."""

    language: str
    perplexity: float | None
    """A word, under the language's model; None where there is no model, or no word."""
    quality: float | None = None
    """Probability of being like the reference; None without a classifier, and so below."""
    toxicity: float | None = None
    """Probability of being abusive."""
    toxic_share: float | None = None
    """Characters of words that stand in terms of the word lists, of all; None where none are looked for."""
    toxic_terms: int | None = None
    """Distinct terms."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What scores are compared with; None compares with nothing."""

    limits: Mapping[str, Limits]
    """Of every language that has perplexities."""
    quality: float | None = None
    """Least that is kept."""
    toxicity: float | None = None
    """Least that is dropped."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rule that drops a document."""

    rule: str
    value: float
    threshold: float
    source: str


def bucket_of(scores: Scores, limits: Mapping[str, Limits]) -> Bucket | None:
    """None where the document has no perplexity."""
    if scores.perplexity is None:
        return None
    of_language = limits[scores.language]
    if scores.perplexity <= of_language.head:
        return "head"
    return "middle" if scores.perplexity <= of_language.middle else "tail"


def decide(scores: Scores, thresholds: Thresholds, spec: QualitySpec) -> Verdict | None:
    """The first rule that a document breaks; None where it is kept."""
    return (
        _by_bucket(scores, thresholds.limits, spec)
        or _by_classifiers(scores, thresholds)
        or _by_words(scores, spec.toxic_words)
    )


def _by_bucket(scores: Scores, limits: Mapping[str, Limits], spec: QualitySpec) -> Verdict | None:
    """The threshold of a verdict is the nearest bound of the bucket: the one that a document in tail is above, and that
    one in head or middle is not above."""
    bucket = bucket_of(scores, limits)
    if bucket is None or bucket in spec.keep:
        return None
    assert scores.perplexity is not None
    of_language = limits[scores.language]
    threshold = of_language.head if bucket == "head" else of_language.middle
    return Verdict(f"perplexity_{bucket}", scores.perplexity, threshold, CCNET)


def _by_classifiers(scores: Scores, thresholds: Thresholds) -> Verdict | None:
    if scores.quality is not None and thresholds.quality is not None and scores.quality < thresholds.quality:
        return Verdict("quality", scores.quality, thresholds.quality, DCLM)
    if scores.toxicity is not None and thresholds.toxicity is not None and scores.toxicity >= thresholds.toxicity:
        return Verdict("toxicity", scores.toxicity, thresholds.toxicity, TOXICITY)
    return None


def _by_words(scores: Scores, words: ToxicWords | None) -> Verdict | None:
    if words is None or scores.toxic_share is None or scores.toxic_terms is None:
        return None
    if words.max_share is not None and scores.toxic_share > words.max_share:
        return Verdict("toxic_words", scores.toxic_share, words.max_share, TOXIC_WORDS)
    if words.max_terms is not None and scores.toxic_terms > words.max_terms:
        return Verdict("toxic_terms", scores.toxic_terms, words.max_terms, TOXIC_WORDS)
    return None
