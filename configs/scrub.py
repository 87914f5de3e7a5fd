"""Removal of what must not be trained on: personal data, and text of the evaluation sets."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.base import Spec

PiiKind = Literal["email", "phone", "ssn", "ip", "credit_card", "iban", "key"]


class Decontamination(Spec):
    """A document is contaminated if it shares an n-gram of words with an example of the evaluation sets (Brown et al.
    2020, arXiv:2005.14165, appendix C). Case, punctuation and white space do not count; in scripts written without
    spaces a character is a word.
    """

    ngram_words: int = Field(default=13, ge=1, le=100)
    min_words: int = Field(default=8, ge=1)
    """Examples of fewer words than an n-gram are looked for as a whole, if they have at least so many."""
    max_documents: int | None = Field(default=10, ge=1)
    """n-grams in more documents than so many are common phrases or boilerplate, and no sign of contamination; so are
    those of an example of which the crawl holds more copies. None counts all n-grams.

    Documents are counted over all shards of this node's input, which its key holds: a run that goes on after a failure
    counts the same. A crawl that is added has a node of its own and changes nothing of those before it. But an n-gram
    that each crawl holds less often than all of them together counts in each: scrubbed apart, crawls lose all that they
    would lose as one, and may lose more. With None, or within one crawl, there is no difference."""
    action: Literal["drop", "cut"] = "drop"
    """`cut` takes out the n-gram and 200 characters on both sides, and drops documents that fall into more than 10
    pieces; pieces under 200 characters go, the others stay as paragraphs of one document."""

    @model_validator(mode="after")
    def _order(self) -> "Decontamination":
        if self.min_words > self.ngram_words:
            raise ValueError(f"min_words {self.min_words} is above ngram_words {self.ngram_words}: lower it")
        return self


class Names(Spec):
    """Names of persons and postal addresses, by a spaCy model (`pip install 'headrace[ner]'`, and the model)."""

    model: str = "en_core_web_sm"
    """An installed package, or the path of a model's folder; every worker must have it."""
    release: str = "en_core_web_sm-3.8.0"
    """What the model calls itself: language_name-version. The node fails where a worker's is another."""
    replace: tuple[Literal["person", "address"], ...] = ("person", "address")
    """What is replaced. A place alone ("the capital of France") is no address: it takes a number beside it."""
    languages: tuple[str, ...] = ("en",)
    """Of the documents that are read: lid.176 codes, which the model should know; empty reads all."""
    documents: Literal["with_other_kinds", "all"] = "with_other_kinds"
    """Which of them: those in which the patterns found something to replace, or all. A model reads some 50 KB a second
    and core, the patterns a thousand times that."""


class ScrubSpec(Spec):
    """Documents that hold text of the evaluation sets go; personal data in the others gives way to typed placeholders
    such as <EMAIL>.
    """

    node: ClassVar[str] = "scrub"
    version: ClassVar[int] = 4

    replace: tuple[PiiKind, ...] = ("email", "phone", "ssn", "ip", "credit_card", "iban", "key")
    """Kinds that are replaced: e-mail addresses, phone numbers, US social security numbers, public IP addresses,
    numbers of payment cards and bank accounts (IBAN), keys and tokens (AWS's, GitHub's, JWTs, PEM)."""
    decontamination: Decontamination | None = Decontamination()
    """Where the recipe has a node `eval-sets`; null looks for nothing."""
    names: Names | None = None
    """Also replaces names of persons and postal addresses. Off: it is slow, and takes its share of wrong words."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
