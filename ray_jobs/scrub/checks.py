"""Whether what a pattern found is what it looks like: addresses and the numbers of people and their phones.

A check is given the whole text, for what stands beside a match tells as much as the match.
"""

import ipaddress
import re
from bisect import bisect_right

# A page may hold hundreds of numbers, so what stands beside one is looked up, not matched.
DIGITS = b"0123456789"
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_" + DIGITS)
_NOT_BEFORE = _WORD | frozenset(b".-/+@#=")
_NOT_AFTER = _WORD | frozenset(b"/@")

# Ends of file names that are written like addresses: logo@2x.png.
_FILES = {b"png", b"jpg", b"jpeg", b"gif", b"svg", b"webp", b"avif", b"css", b"js"}


def is_email(text: bytes, start: int, end: int) -> bool:
    local, _, domain = text[start:end].partition(b"@")
    return (
        len(local) <= 64  # RFC 5321, 4.5.3.1
        and len(domain) <= 255
        and b".-" not in b"." + domain
        and b"-." not in domain + b"."
        and domain.rpartition(b".")[2].lower() not in _FILES
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
_FIRST_NOT_PUBLIC = [int(network[0]) for network in _NOT_PUBLIC_V4]  # in order
_LAST_NOT_PUBLIC = [int(network[-1]) for network in _NOT_PUBLIC_V4]
_PART_OF_NUMBER = re.compile(rb"[.\-]\d")
# Of the global unicast space 2000::/3, which the pattern asks for, only documentation is nobody's.
_NOT_PUBLIC_V6 = [ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20")]


def is_public_ipv4(text: bytes, start: int, end: int) -> bool:
    if text[start - 1 : start] in {b".", b"-"} or _PART_OF_NUMBER.match(text, end):  # part of a longer number
        return False
    parts = text[start:end].split(b".")
    octets = [int(part) for part in parts]
    # Four numbers below 32 are a section's or a version's number; of the addresses in use they are one in 4,096.
    if not 32 <= max(octets) <= 255 or any(len(part) > 1 and part.startswith(b"0") for part in parts):
        return False
    address = int.from_bytes(bytes(octets))
    before = bisect_right(_FIRST_NOT_PUBLIC, address) - 1
    return before < 0 or address > _LAST_NOT_PUBLIC[before]


def is_public_ipv6(text: bytes, start: int, end: int) -> bool:
    if text[start - 1 : start] == b":" or re.match(rb"[\w:]|\.\d", text[end : end + 2]):
        return False
    try:
        address = ipaddress.IPv6Address(text[start:end].decode())
    except ValueError:  # a time of day, too few groups, two gaps
        return False
    return not any(address in network for network in _NOT_PUBLIC_V6)


def is_joined(text: bytes, start: int, end: int, after: bytes = b"") -> bool:
    """Whether the number is a part of something longer: 1.2.3.4.5, a-1-2, 12-3456-7890-1, part/1-2.

    `after` are the characters that it may follow all the same.
    """
    if start > 0 and text[start - 1] in _NOT_BEFORE and text[start - 1] not in after:
        return True
    if end == len(text):
        return False
    return text[end] in _NOT_AFTER or (text[end] in b".-" and end + 1 < len(text) and text[end + 1] in _WORD)


def is_ssn(text: bytes, start: int, end: int) -> bool:
    return not is_joined(text, start, end)


def num_digits(found: bytes) -> int:
    return len(found) - len(found.translate(None, DIGITS))


_NUMBER_BEFORE = re.compile(rb"\d[ .\-]$")
_NUMBER_AFTER = re.compile(rb"[ .\-]\d")


def _is_in_row_of_numbers(text: bytes, start: int, end: int) -> bool:
    """Whether other numbers stand directly beside, as in a table. Nothing before an area code in parentheses counts."""
    before = text[max(0, start - 2) : start]
    return bool((text[start] != ord("(") and _NUMBER_BEFORE.match(before)) or _NUMBER_AFTER.match(text, end))


def is_international_phone(text: bytes, start: int, end: int) -> bool:
    # ITU-T E.164: 15 digits at the most; the shortest national numbers with their country code have 8.
    return 8 <= num_digits(text[start:end]) <= 15 and not is_joined(text, start, end)


def is_american_phone(text: bytes, start: int, end: int) -> bool:
    return not is_joined(text, start, end) and not _is_in_row_of_numbers(text, start, end)


def is_national_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    separators = set(found) & set(b" .-/")
    return (
        9 <= num_digits(found) <= 12
        and len(separators) == 1
        and not is_joined(text, start, end)
        and not _is_in_row_of_numbers(text, start, end)
    )


# 2024-05-01, 1.5.2024, 2019-2020
_DATE = re.compile(
    rb"(?:19|20)\d\d[ ./\-](?:(?:0?[1-9]|1[0-2])[ ./\-]|(?:19|20)\d\d)|[0-3]?\d[./\-][01]?\d[./\-](?:19|20)\d\d"
)


def is_labelled_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    return 7 <= num_digits(found) <= 15 and not _DATE.match(found) and not re.match(rb"\w", text[end : end + 1])
