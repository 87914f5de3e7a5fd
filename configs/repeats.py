"""Removal of text that is repeated across documents."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.base import Spec


class RepeatsSpec(Spec):
    """Text that earlier documents have is cut out of later ones.

    Three rules look for it: lines and paragraphs that stand in many documents (headers, notices, menus), and word
    sequences of any two places, however they are cut into lines (licences, quotations, pages within pages). What is
    judged is the text as it came in: no rule sees what another has cut, so their order does not matter. What a document
    loses depends on earlier documents alone, so later ones, such as another crawl's, change nothing before them.
    """

    node: ClassVar[str] = "repeats"
    version: ClassVar[int] = 2

    max_line_documents: int | None = Field(default=6, ge=1)
    """A line stays in the first so many documents that have it and is cut out of all later ones; null keeps all lines.
    The number is Llama 3's (Dubey et al. 2024, section 3.1.1), which counts in buckets of 30 million documents; with 1
    the rule is that of CCNet (Wenzek et al. 2020, section 3.1)."""
    max_paragraph_documents: int | None = Field(default=6, ge=1)
    """As for lines, of what stands between blank lines: it catches paragraphs of lines that are short."""
    min_characters: int = Field(default=40, ge=1)
    """Lines and paragraphs with fewer characters, after normalisation, are never cut: headings such as "Parameters",
    entries of lists and idioms of code ("Traceback (most recent call last):" has 31) recur by their nature."""
    min_repeated_words: int | None = Field(default=50, ge=8, le=1000)
    """A sequence of this many words that stands at an earlier place word for word is cut out; null keeps all. Lee et
    al. ("Deduplicating Training Data Makes Language Models Better", 2022, section 4.1) take 50 tokens."""
    within_files: Literal["windows", "suffix-array"] = "windows"
    """How such sequences are found among the documents of one file: by sorted hashes of windows, compared word by word,
    or by the suffix array of Lee et al. Both cut the same words; the suffix array takes 2.7 times as long. Across files
    they are always found by hashes."""
    min_words: int = Field(default=50, ge=1)
    """A document that was cut and has fewer words left is dropped. 50 is Gopher's least length of a document."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""

    @model_validator(mode="after")
    def _some_rule(self) -> "RepeatsSpec":
        if self.max_line_documents is self.max_paragraph_documents is self.min_repeated_words is None:
            raise ValueError("all three rules are null: set one, or take repeats out of the recipe")
        return self
