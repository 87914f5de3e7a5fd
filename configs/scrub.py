"""Removal of personal data."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.base import Spec

PiiKind = Literal["email", "phone", "ssn", "ip", "credit_card", "iban", "key"]


class ScrubSpec(Spec):
    """Personal data in the text gives way to typed placeholders such as <EMAIL>; no document is dropped."""

    node: ClassVar[str] = "scrub"
    version: ClassVar[int] = 2

    replace: tuple[PiiKind, ...] = ("email", "phone", "ssn", "ip", "credit_card", "iban", "key")
    """Kinds that are replaced: e-mail addresses, phone numbers, US social security numbers, public IP addresses,
    numbers of payment cards and bank accounts (IBAN), keys and tokens (AWS's, GitHub's, JWTs, PEM)."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
