"""Personal data that has a form: a table of patterns, each with a check of what it found.

Patterns are RE2's, whose time is linear in the text whatever the text (no lookaround, no back-reference); what a
regular expression says badly, such as the ranges of an address or the digits beside a number, is said by the rule's
check in Python, which sees the few matches only. Text is matched as bytes: `\\d`, `\\w` and `\\b` mean ASCII, and any
byte above 127 is no part of a word.

A new kind of data is one more row of RULES and one of PLACEHOLDERS. Where two rules claim the same bytes, the upper row
has them.
"""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import re2

PLACEHOLDERS = {"email": b"<EMAIL>", "ip": b"<IP>", "ssn": b"<SSN>", "phone": b"<PHONE>"}

Check = Callable[[bytes, int, int], bool]


@dataclass(frozen=True)
class Rule:
    kind: str
    pattern: bytes
    check: Check
    """check(text, start, end): whether the match is what it looks like."""
    group: int = 0
    """The part of the match that is replaced."""


@dataclass(frozen=True, order=True)
class Span:
    start: int
    end: int
    kind: str


# Ends of file names that are written like addresses: logo@2x.png.
_FILES = {b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp", b"avif", b"css", b"js"}


def _is_email(text: bytes, start: int, end: int) -> bool:
    local, _, domain = text[start:end].partition(b"@")
    labels = domain.split(b".")
    return (
        len(local) <= 64  # RFC 5321, 4.5.3.1
        and len(domain) <= 255
        and not any(label.startswith(b"-") or label.endswith(b"-") for label in labels)
        and labels[-1].lower() not in _FILES
    )


# Addresses that belong to nobody in public: IANA's special-purpose registries (RFC 6890), multicast and reserved space.
_NOT_PUBLIC_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
# Of the global unicast space 2000::/3, which the pattern asks for, only documentation is nobody's.
_NOT_PUBLIC_V6 = [ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20")]


def _is_public_ipv4(text: bytes, start: int, end: int) -> bool:
    if text[start - 1 : start] in {b".", b"-"} or re.match(rb"[.\-]\d", text[end : end + 2]):  # part of a longer number
        return False
    try:
        address = ipaddress.IPv4Address(text[start:end].decode())
    except ValueError:  # an octet past 255 or with a leading zero
        return False
    # Four numbers below 32 are a section's or a version's number; of the addresses in use they are one in 4,096.
    if max(address.packed) < 32:
        return False
    return not any(address in network for network in _NOT_PUBLIC_V4)


def _is_public_ipv6(text: bytes, start: int, end: int) -> bool:
    if text[start - 1 : start] == b":" or re.match(rb"[\w:]|\.\d", text[end : end + 2]):
        return False
    try:
        address = ipaddress.IPv6Address(text[start:end].decode())
    except ValueError:  # a time of day, too few groups, two gaps
        return False
    return not any(address in network for network in _NOT_PUBLIC_V6)


def _is_joined(text: bytes, start: int, end: int) -> bool:
    """Whether the number is a part of something longer: 1.2.3.4.5, a-1-2, 12-3456-7890-1, part/1-2."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    return bool(re.match(rb"[\w.\-/+@#=]", before) or re.match(rb"[\w/@]|[.\-]\w", after))


def _is_ssn(text: bytes, start: int, end: int) -> bool:
    return not _is_joined(text, start, end)


def _num_digits(found: bytes) -> int:
    return sum(48 <= byte <= 57 for byte in found)


def _is_in_row_of_numbers(text: bytes, start: int, end: int) -> bool:
    """Whether other numbers stand directly beside, as in a table. Nothing before an area code in parentheses counts."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return bool((text[start] != ord("(") and re.search(rb"\d[ .\-]$", before)) or re.match(rb"[ .\-]\d", after))


def _is_international_phone(text: bytes, start: int, end: int) -> bool:
    # ITU-T E.164: 15 digits at the most; the shortest national numbers with their country code have 8.
    return 8 <= _num_digits(text[start:end]) <= 15 and not _is_joined(text, start, end)


def _is_american_phone(text: bytes, start: int, end: int) -> bool:
    return not _is_joined(text, start, end) and not _is_in_row_of_numbers(text, start, end)


def _is_national_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    separators = set(found) & set(b" .-/")
    return (
        9 <= _num_digits(found) <= 12
        and len(separators) == 1
        and not _is_joined(text, start, end)
        and not _is_in_row_of_numbers(text, start, end)
    )


# 2024-05-01, 1.5.2024, 2019-2020
_DATE = re.compile(
    rb"(?:19|20)\d\d[ ./\-](?:(?:0?[1-9]|1[0-2])[ ./\-]|(?:19|20)\d\d)|[0-3]?\d[./\-][01]?\d[./\-](?:19|20)\d\d"
)


def _is_labelled_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    return 7 <= _num_digits(found) <= 15 and not _DATE.match(found) and not re.match(rb"\w", text[end : end + 1])


RULES = (
    Rule(
        "email",
        rb"[A-Za-z0-9_][A-Za-z0-9._%+\-]*@(?:[A-Za-z0-9\-]+\.)+(?:xn--[A-Za-z0-9\-]+|[A-Za-z]{2,})",
        _is_email,
    ),
    Rule(
        "ip",
        rb"\b[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?",
        _is_public_ipv6,
    ),
    Rule("ip", rb"\b(?:\d{1,3}\.){3}\d{1,3}\b", _is_public_ipv4),
    # Areas 000, 666 and 900-999, group 00 and serial 0000 are never issued (Social Security Administration, POMS RM
    # 10201.035).
    Rule(
        "ssn",
        rb"\b(?:00[1-9]|0[1-9]\d|[1-578]\d\d|6[0-57-9]\d|66[0-57-9])-(?:0[1-9]|[1-9]\d)-"
        rb"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})\b",
        _is_ssn,
    ),
    # +41 (0)96 471 07 95
    Rule(
        "phone",
        rb"\+\d{1,3}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?\d{1,4}(?:[ .\-/]?\d{1,4}){1,6}",
        _is_international_phone,
    ),
    # (541) 714-1388, 345-899-3560 x4587: area and exchange begin with 2-9 (North American Numbering Plan).
    Rule(
        "phone",
        rb"(?:\b1[ .\-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .\-])[2-9]\d{2}[ .\-]\d{4}(?: ?(?:x|ext\.? ?)\d{1,5})?\b",
        _is_american_phone,
    ),
    # 01.84.17.61.18, (0151) 234 5678, 030 12345678: written within a country, with its trunk 0.
    Rule(
        "phone",
        rb"(?:\(0[1-9]\d{0,3}\)|\b0[1-9]\d{0,3})(?:[ .\-/]\d{2,4}){2,4}\b"
        rb"|(?:\(0[1-9]\d{1,4}\)|\b0[1-9]\d{1,4})[ \-/]\d{5,8}\b",
        _is_national_phone,
    ),
    # Tel.: 9498777106, 21 284 698 2548 (office): any number of a phone's length that is labelled as one.
    Rule(
        "phone",
        rb"(?i)\b(?:phone|tel(?:e(?:f(?:on|ono|one)|phone))?|mobile|cell|fax|call|whatsapp|ph)\b[^\w(+]{0,4}"
        rb"(?:(?:number|no|nr|us|is|at|me|on)\b[^\w(+]{0,4}){0,3}(\+?\(?\d[\d ().\-/]{5,18}\d)",
        _is_labelled_phone,
        group=1,
    ),
    Rule(
        "phone",
        rb"(?i)(\+?(?:\(\d|\b\d)[\d ().\-/]{5,18}\d)[ \-(]{1,3}(?:phone|tel|mobile|cell|fax|office|home|work)\b",
        _is_labelled_phone,
        group=1,
    ),
)


class Scanner:
    """The rules of the given kinds, compiled. One pass of all of them together finds which apply to a text at all."""

    def __init__(self, kinds: Iterable[str]):
        wanted = set(kinds)
        self._rules = [rule for rule in RULES if rule.kind in wanted]
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character, as for `re` on bytes
        options.max_mem = 64 << 20
        self._patterns = [re2.compile(rule.pattern, options=options) for rule in self._rules]
        self._any = re2.Set.SearchSet(options)
        for rule in self._rules:
            self._any.Add(rule.pattern)
        self._any.Compile()

    def find(self, text: bytes) -> list[Span]:
        """What is personal in the text, in order, without overlaps."""
        if not self._rules:
            return []
        spans: list[Span] = []
        for number in sorted(self._any.Match(text) or ()):
            rule = self._rules[number]
            found = (match.span(rule.group) for match in self._patterns[number].finditer(text))
            spans += [Span(a, b, rule.kind) for a, b in found if rule.check(text, a, b) and _is_free(a, b, spans)]
            spans.sort()
        return spans


def _is_free(start: int, end: int, spans: list[Span]) -> bool:
    """Whether text[start:end] overlaps none of the sorted spans of earlier rules."""
    after = bisect_left(spans, start, key=lambda one: one.start)
    return not (after > 0 and spans[after - 1].end > start) and not (after < len(spans) and spans[after].start < end)


@lru_cache(maxsize=4)
def scanner(kinds: tuple[str, ...]) -> Scanner:
    """One scanner a process: its automata are built once and grow as they meet text."""
    return Scanner(kinds)
