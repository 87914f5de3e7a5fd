"""The rules that decide which documents are kept, each with its threshold and whose it is.

Deciding needs the scores, the URL and the spec, and no text: `judge` decides, and `redecide` decides again over rows of
an audit, with the same spec or another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from configs.crawl import FilterSpec
from ray_jobs.crawl.scores import Scores
from ray_jobs.crawl.statistics import statistics_of


@dataclass(frozen=True, slots=True)
class Rule:
    """A document breaks it where its score is beyond the threshold. On the threshold it is kept."""

    name: str
    version: int
    """Raised when the same score and threshold would be decided otherwise."""
    score: str
    """Of `Statistics`, or `language_score` or `removed_words` of `Scores`."""
    group: str | None
    """The field of FilterSpec that holds the threshold; None where it holds it itself."""
    threshold: str
    """The threshold's field. By its name it is the least (min_) or the most (max_) that is kept."""
    source: str

    is_least: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_least", self.threshold.startswith("min_"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first rule that a document breaks, or the reason why it has no scores."""

    rule: str
    value: float | None
    threshold: float | None
    """Both None where nothing is measured; the threshold alone where it is no number."""


_QUALITY = "Gopher (Rae et al. 2021, appendix A.1.1)"
_REPETITION = "Gopher (Rae et al. 2021, table A1)"
_C4 = "C4 (Raffel et al. 2020, section 2.2)"
_REFINEDWEB = "RefinedWeb (Penedo et al. 2023, appendix G.2)"
_FINEWEB_LANGUAGE = "FineWeb (Penedo et al. 2024, section 3.3)"
_FINEWEB = "FineWeb (Penedo et al. 2024, section 3.6)"

URL_BLOCKLIST, LANGUAGE = "url_blocklist", "language"
RULES = (
    Rule(
        "refinedweb_removed_words",
        1,
        "removed_words",
        "refinedweb_lines",
        "max_removed_words",
        f"{_REFINEDWEB}: at most .05 of words in lines that are removed or cut",
    ),
    Rule("language_score", 1, "language_score", None, "min_language_score", f"{_FINEWEB_LANGUAGE}: at least .65"),
    Rule("min_words", 1, "num_words", None, "min_words", f"{_QUALITY}: at least 50 words"),
    Rule("min_tokens", 1, "num_tokens", None, "min_tokens", "at least 50 tokens, of 4 bytes each"),
    Rule("max_words", 1, "num_words", None, "max_words", f"{_QUALITY}: at most 100,000 words"),
    Rule(
        "symbol_ratio",
        1,
        "symbol_ratio",
        None,
        "max_symbol_ratio",
        f"{_QUALITY}: at most .1 hash signs or ellipses a word",
    ),
    *(
        Rule(f"gopher_{name}", 1, score, "gopher_quality", threshold, f"{_QUALITY}: {says}")
        for name, score, threshold, says in (
            (
                "min_word_length",
                "mean_word_length",
                "min_mean_word_length",
                "words of at least 3 characters on average",
            ),
            (
                "max_word_length",
                "mean_word_length",
                "max_mean_word_length",
                "words of at most 10 characters on average",
            ),
            ("bullet_lines", "bullet_lines", "max_bullet_lines", "at most .9 of lines begin with a bullet"),
            ("ellipsis_lines", "ellipsis_lines", "max_ellipsis_lines", "at most .3 of lines end in an ellipsis"),
            ("alphabetic_words", "alphabetic_words", "min_alphabetic_words", "at least .8 of words have a letter"),
            ("stop_words", "num_stop_words", "min_stop_words", "at least 2 of 8 English stop words"),
        )
    ),
    *(
        Rule(
            f"gopher_{score}",
            2 if "grams" in score else 1,  # since 2 shares are of the document's characters, and repeats apart
            score,
            "gopher_repetition",
            f"max_{score}",
            f"{_REPETITION}: at most {limit} of {what}",
        )
        for score, limit, what in (
            ("duplicate_lines", ".3", "lines stood before"),
            ("duplicate_line_characters", ".2", "characters are in lines that stood before"),
            ("duplicate_paragraphs", ".3", "paragraphs stood before"),
            ("duplicate_paragraph_characters", ".2", "characters are in paragraphs that stood before"),
            ("top_2_grams", ".2", "characters are in the most frequent 2-gram"),
            ("top_3_grams", ".18", "characters are in the most frequent 3-gram"),
            ("top_4_grams", ".16", "characters are in the most frequent 4-gram"),
            ("duplicate_5_grams", ".15", "characters are in 5-grams that stood before"),
            ("duplicate_6_grams", ".14", "characters are in 6-grams that stood before"),
            ("duplicate_7_grams", ".13", "characters are in 7-grams that stood before"),
            ("duplicate_8_grams", ".12", "characters are in 8-grams that stood before"),
            ("duplicate_9_grams", ".11", "characters are in 9-grams that stood before"),
            ("duplicate_10_grams", ".1", "characters are in 10-grams that stood before"),
        )
    ),
    *(
        Rule(f"c4_{name}", 1, score, "c4", threshold, f"{_C4}: {says}")
        for name, score, threshold, says in (
            ("sentences", "num_sentences", "min_sentences", "at least 5 sentences"),
            ("lorem_ipsum", "num_lorem_ipsum", "max_lorem_ipsum", 'no "lorem ipsum"'),
            ("curly_brackets", "num_curly_brackets", "max_curly_brackets", "no curly bracket"),
            ("punctuated_lines", "punctuated_lines", "min_punctuated_lines", "lines that end in punctuation"),
            ("few_word_lines", "few_word_lines", "max_few_word_lines", "lines of at least 3 words"),
            ("javascript_lines", "javascript_lines", "max_javascript_lines", 'lines without "javascript"'),
        )
    ),
    *(
        Rule(f"fineweb_{score}", 1, score, "fineweb", threshold, f"{_FINEWEB}: {says}")
        for score, threshold, says in (
            ("punctuated_lines", "min_punctuated_lines", "at least .12 of lines end in punctuation"),
            (
                "duplicate_line_characters",
                "max_duplicate_line_characters",
                "at most .1 of characters are in lines that stood before",
            ),
            ("short_lines", "max_short_lines", "at most .67 of lines are shorter than 30 characters"),
            ("newlines_per_word", "max_newlines_per_word", "at most .3 newlines a word (datatrove's default)"),
        )
    ),
)
SOURCES = {
    URL_BLOCKLIST: "the domains that the recipe blocks",
    LANGUAGE: "the languages that the recipe asks for, by fastText lid.176 or the recipe's language_model",
    **{rule.name: rule.source for rule in RULES},
}
OF_SCORES = frozenset({"language_score", "removed_words"})
VERSIONS = {URL_BLOCKLIST: 1, LANGUAGE: 1, **{rule.name: rule.version for rule in RULES}}


def judge(scores: Scores, url: str | None, spec: FilterSpec) -> Verdict | None:
    """None where the document is kept."""
    if spec.url_blocklist and is_blocked(url, spec.url_blocklist):
        return Verdict(URL_BLOCKLIST, None, None)
    if spec.languages and not {scores.language, scores.language_label}.intersection(spec.languages):
        return Verdict(LANGUAGE, scores.language_score, None)
    for rule, threshold in thresholds_for(spec, scores.language):
        value = getattr(scores if rule.score in OF_SCORES else scores.statistics, rule.score)
        if value is not None and (value < threshold if rule.is_least else value > threshold):
            return Verdict(rule.name, value, threshold)
    return None


@lru_cache(maxsize=1024)
def thresholds_for(spec: FilterSpec, language: str) -> tuple[tuple[Rule, float], ...]:
    """The rules that judge documents in the language, each with its threshold."""
    found = []
    for rule in RULES:
        thresholds: Any = getattr(spec, rule.group) if rule.group else spec
        threshold = None if thresholds is None else getattr(thresholds, rule.threshold)
        if threshold is not None and _is_for(thresholds, rule, language):
            found.append((rule, threshold))
    return tuple(found)


def _is_for(thresholds: Any, rule: Rule, language: str) -> bool:
    return rule.group != "gopher_quality" or not thresholds.languages or language in thresholds.languages


def redecide(row: Mapping[str, Any], spec: FilterSpec) -> Verdict | None:
    """What becomes of a row of an audit under the spec; None where it is kept.

    A record that was dropped before any score was measured stays dropped, for the same reason; and so does one of which
    line corrections left nothing.
    """
    if row["num_words"] is None or row["rule"] == "no_text":
        return Verdict(row["rule"], row["value"], row["threshold"])
    scores = Scores(
        row["language"],
        row["language_score"],
        statistics_of(row),
        row["language_label"] or "",
        row["second_language"],
        row["removed_words"],
    )
    return judge(scores, row["url"], spec)


def is_blocked(url: str | None, domains: tuple[str, ...]) -> bool:
    """Whether the URL's host is one of the domains or below one. A URL without a host is not."""
    try:
        host = urlsplit(url or "").hostname
    except ValueError:  # brackets that hold no address
        return False
    host = (host or "").rstrip(".")
    labels = host.split(".")
    return any(".".join(labels[first:]) in domains for first in range(len(labels)))
