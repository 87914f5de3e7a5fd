"""The forms of personal data: a table of patterns, each with a check of what it found.

Patterns are RE2's, whose time is linear in the text whatever the text (no lookaround, no back-reference); what a
regular expression says badly, such as the ranges of an address or the digits beside a number, is said by the rule's
check in Python, which sees the few matches only. Text is matched as bytes: `\\d`, `\\w` and `\\b` mean ASCII, and any
byte above 127 is no part of a word. White space is spelled out, for `\\s` is not the same to RE2 and to `re`.

A new kind of data is one more row of RULES and one of PLACEHOLDERS. Where two rules claim the same bytes, the upper row
has them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ray_jobs.scrub.accounts import SEPARATOR, iban_pattern, is_card, is_iban
from ray_jobs.scrub.checks import (
    is_american_phone,
    is_email,
    is_international_phone,
    is_labelled_phone,
    is_national_phone,
    is_public_ipv4,
    is_public_ipv6,
    is_ssn,
)
from ray_jobs.scrub.keys import PRIVATE_KEY, is_key, is_key_with_digits, is_web_token

PLACEHOLDERS = {
    "email": b"<EMAIL>",
    "ip": b"<IP>",
    "ssn": b"<SSN>",
    "phone": b"<PHONE>",
    "credit_card": b"<CREDIT_CARD>",
    "iban": b"<IBAN>",
    "key": b"<KEY>",
}

Check = Callable[[bytes, int, int], bool]


@dataclass(frozen=True)
class Rule:
    kind: str
    pattern: bytes
    check: Check
    """check(text, start, end): whether the match is what it looks like."""
    group: int = 0
    """The part of the match that is replaced."""


RULES = (
    # Keys come first, for an address of a server may hold one: https://<KEY>@github.com. Their prefixes and lengths are
    # those that the issuers document, so that scanners of leaked secrets find them.
    Rule("key", PRIVATE_KEY, is_key),
    Rule("key", rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", is_key),
    Rule("key", rb"\b(?:gh[opusr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b", is_key),
    Rule("key", rb"\b(?:xox[abceoprs](?:\.xox[bp])?|xapp)-\d[A-Za-z0-9\-]{14,}", is_key_with_digits),
    Rule("key", rb"\b[rs]k_live_[A-Za-z0-9]{24,}\b", is_key),
    Rule("key", rb"\bAIza[A-Za-z0-9_\-]{35}", is_key_with_digits),
    Rule(
        "key",
        rb"\bsk-(?:(?:proj|svcacct|admin|or-v\d|ant-[a-z]+\d\d)-[A-Za-z0-9_\-]{32,}|[A-Za-z0-9]{32,}\b)",
        is_key_with_digits,
    ),
    Rule("key", rb"\bhf_[A-Za-z0-9]{34}\b", is_key),
    Rule("key", rb"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]{20,}", is_web_token),
    Rule(
        "email",
        rb"[A-Za-z0-9_][A-Za-z0-9._%+\-]*@(?:[A-Za-z0-9\-]+\.)+(?:xn--[A-Za-z0-9\-]+|[A-Za-z]{2,})",
        is_email,
    ),
    Rule(
        "ip",
        rb"\b[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?",
        is_public_ipv6,
    ),
    Rule("ip", rb"\b(?:\d{1,3}\.){3}\d{1,3}\b", is_public_ipv4),
    # DE89 3704 0044 0532 0130 00, before cards and phones: sixteen of its digits may pass for a card.
    Rule("iban", iban_pattern(), is_iban),
    # 4012 8888 8888 1881, 3714 496353 98431: in one piece, in fours, or as American Express and Diners Club print them.
    Rule("credit_card", rb"\b[1-68]\d{11,18}\b", is_card),
    Rule("credit_card", rb"\b[2-68]\d{3}(?:%b\d{4}){3}%b\d{3}\b" % (SEPARATOR, SEPARATOR), is_card),
    Rule("credit_card", rb"\b(?:2[2-7]|3[56]|[4-6]\d|8[12])\d{2}(?:%b\d{4}){3}\b" % SEPARATOR, is_card),
    Rule("credit_card", rb"\b3\d{3}%b\d{6}%b\d{4,5}\b" % (SEPARATOR, SEPARATOR), is_card),
    # Areas 000, 666 and 900-999, group 00 and serial 0000 are never issued (Social Security Administration, POMS RM
    # 10201.035).
    Rule(
        "ssn",
        rb"\b(?:00[1-9]|0[1-9]\d|[1-578]\d\d|6[0-57-9]\d|66[0-57-9])-(?:0[1-9]|[1-9]\d)-"
        rb"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})\b",
        is_ssn,
    ),
    # +41 (0)96 471 07 95
    Rule(
        "phone",
        rb"\+\d{1,3}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?\d{1,4}(?:[ .\-/]?\d{1,4}){1,6}",
        is_international_phone,
    ),
    # (541) 714-1388, 345-899-3560 x4587: area and exchange begin with 2-9 (North American Numbering Plan).
    Rule(
        "phone",
        rb"(?:\b1[ .\-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .\-])[2-9]\d{2}[ .\-]\d{4}(?: ?(?:x|ext\.? ?)\d{1,5})?\b",
        is_american_phone,
    ),
    # 01.84.17.61.18, (0151) 234 5678, 030 12345678: written within a country, with its trunk 0.
    Rule(
        "phone",
        rb"(?:\(0[1-9]\d{0,3}\)|\b0[1-9]\d{0,3})(?:[ .\-/]\d{2,4}){2,4}\b"
        rb"|(?:\(0[1-9]\d{1,4}\)|\b0[1-9]\d{1,4})[ \-/]\d{5,8}\b",
        is_national_phone,
    ),
    # Tel.: 9498777106, 21 284 698 2548 (office): any number of a phone's length that is labelled as one.
    Rule(
        "phone",
        rb"(?i)\b(?:phone|tel(?:e(?:f(?:on|ono|one)|phone))?|mobile|cell|fax|call|whatsapp|ph)\b[^\w(+]{0,4}"
        rb"(?:(?:number|no|nr|us|is|at|me|on)\b[^\w(+]{0,4}){0,3}(\+?\(?\d[\d ().\-/]{5,18}\d)",
        is_labelled_phone,
        group=1,
    ),
    Rule(
        "phone",
        rb"(?i)(\+?(?:\(\d|\b\d)[\d ().\-/]{5,18}\d)[ \-(]{1,3}(?:phone|tel|mobile|cell|fax|office|home|work)\b",
        is_labelled_phone,
        group=1,
    ),
)
