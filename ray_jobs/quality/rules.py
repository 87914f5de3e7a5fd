"""Which documents are kept, by their scores. Deciding needs no text, so an audit is enough to decide again."""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.quality import Bucket, Limits, QualitySpec

CCNET = "CCNet (Wenzek et al. 2020; PerplexityBucket): head, middle and tail by percentile of perplexity"


@dataclass(frozen=True, slots=True)
class Scores:
    """What is measured of one document."""

    language: str
    perplexity: float | None
    """A word, under the language's model; None where there is no model, or no word."""


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


def decide(scores: Scores, limits: Mapping[str, Limits], spec: QualitySpec) -> Verdict | None:
    """None where the document is kept. `limits` are those of every language that has perplexities.

    The threshold of a verdict is the nearest bound of the bucket: the one that a document in tail is above, and that
    one in head or middle is not above.
    """
    bucket = bucket_of(scores, limits)
    if bucket is None or bucket in spec.keep:
        return None
    assert scores.perplexity is not None
    of_language = limits[scores.language]
    threshold = of_language.head if bucket == "head" else of_language.middle
    return Verdict(f"perplexity_{bucket}", scores.perplexity, threshold, CCNET)
