"""Removal of personal data."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.base import Spec

PiiKind = Literal["email", "phone", "ssn", "ip", "credit_card", "iban", "key"]


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
    """Personal data in the text gives way to typed placeholders such as <EMAIL>; no document is dropped."""

    node: ClassVar[str] = "scrub"
    version: ClassVar[int] = 3

    replace: tuple[PiiKind, ...] = ("email", "phone", "ssn", "ip", "credit_card", "iban", "key")
    """Kinds that are replaced: e-mail addresses, phone numbers, US social security numbers, public IP addresses,
    numbers of payment cards and bank accounts (IBAN), keys and tokens (AWS's, GitHub's, JWTs, PEM)."""
    names: Names | None = None
    """Also replaces names of persons and postal addresses. Off: it is slow, and takes its share of wrong words."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
