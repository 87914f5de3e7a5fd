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
    those of an example of which the crawl holds more copies. None counts all n-grams."""
    action: Literal["drop", "cut"] = "drop"
    """`cut` takes out the n-gram and 200 characters on both sides, and drops documents that fall into more than 10
    pieces; pieces under 200 characters go, the others stay as paragraphs of one document."""

    @model_validator(mode="after")
    def _order(self) -> "Decontamination":
        if self.min_words > self.ngram_words:
            raise ValueError(f"min_words {self.min_words} is above ngram_words {self.ngram_words}: lower it")
        return self


class ScrubSpec(Spec):
    """Documents that hold text of the evaluation sets go; personal data in the others gives way to typed placeholders
    such as <EMAIL>.
    """

    node: ClassVar[str] = "scrub"
    version: ClassVar[int] = 3

    replace: tuple[PiiKind, ...] = ("email", "phone", "ssn", "ip", "credit_card", "iban", "key")
    """Kinds that are replaced: e-mail addresses, phone numbers, US social security numbers, public IP addresses,
    numbers of payment cards and bank accounts (IBAN), keys and tokens (AWS's, GitHub's, JWTs, PEM)."""
    decontamination: Decontamination | None = Decontamination()
    """Where the recipe has a node `eval-sets`; null looks for nothing."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
