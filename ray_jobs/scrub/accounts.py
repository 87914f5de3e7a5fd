"""Numbers of payment cards and of bank accounts."""

import re

from ray_jobs.scrub.checks import DIGITS, is_joined, num_digits

SEPARATOR = rb"(?:[ \-]|\xc2\xa0)"
"""Between groups: a space, a hyphen, or the no-break space of web pages in UTF-8."""
_SEPARATORS = b" -\xc2\xa0"

# First digits of a card's number and how many digits it has (ISO/IEC 7812-1; ranges as the issuers publish them). A
# range of prefixes is one row: first, last, lengths. Compared with braintree's credit-card-type: Elo and Verve lie
# within the ranges of Discover, Maestro and Visa but for one row of their own. Its Maestro is all of 6 and its UnionPay
# has 14 digits too; of such wide ranges one number in ten is a card by chance. Without a row: Visa of 18 digits, and
# what is used in one country only (Troy 9792, Uzcard 8600, Humo 9860, Borica 2205) or by airlines (UATP 1).
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14})),  # Diners Club
    (3095, 3095, frozenset({14})),
    (36, 36, frozenset(range(14, 20))),
    (38, 39, frozenset({14})),
    (6011, 6011, frozenset(range(16, 20))),  # Discover
    (644, 649, frozenset(range(16, 20))),
    (65, 65, frozenset(range(16, 20))),
    (1800, 1800, frozenset({15})),  # JCB
    (2131, 2131, frozenset({15})),
    (3528, 3589, frozenset(range(16, 20))),
    (62, 62, frozenset(range(16, 20))),  # UnionPay
    (50, 50, frozenset(range(12, 20))),  # Maestro
    (56, 58, frozenset(range(12, 20))),
    (6304, 6304, frozenset(range(12, 20))),
    (6390, 6390, frozenset(range(12, 20))),
    (67, 67, frozenset(range(12, 20))),
    (2200, 2204, frozenset(range(16, 20))),  # Mir
    (60, 60, frozenset({16})),  # RuPay, Hipercard
    (636, 639, frozenset({16})),  # Elo, Hiper, InstaPayment
    (81, 82, frozenset({16})),
)

# Numbers of 12 and 13 digits are bar codes too (GTIN-12 and -13), and longer ones than 16 the keys of databases; one in
# ten passes Luhn's check by chance. They count beside a word for a card only.
_USUAL_LENGTHS = {14, 15, 16}
_CARD_WORD = re.compile(
    rb"(?i)\b(?:cards?|cc|pan|credit|debit|visa|master ?card|maestro|amex|discover|jcb|unionpay|carte|karte|tarjeta)\b"
)
_WORD_REACH = 48
"""Bytes before a number in which a word says what it is."""


def is_card(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    digits = found.translate(None, _SEPARATORS)
    return (
        not (b"-" in found and (b" " in found or b"\xa0" in found))
        and not is_joined(text, start, end, after=b"#")
        and (digits == found or not _is_in_row_of_fours(text, start, end))
        and _has_issuer(digits)
        and _passes_luhn(digits)
        and (len(digits) in _USUAL_LENGTHS or bool(_CARD_WORD.search(text[max(0, start - _WORD_REACH) : start])))
    )


def _lengths_by_prefix() -> list[frozenset[int]]:
    """For each four first digits the lengths that a card's number may have."""
    table: list[frozenset[int]] = [frozenset()] * 10_000
    for first, last, lengths in _ISSUERS:
        below = 10 ** (4 - len(str(first)))
        for prefix in range(first * below, (last + 1) * below):
            table[prefix] |= lengths
    return table


_LENGTHS_OF_PREFIX = _lengths_by_prefix()


def _has_issuer(digits: bytes) -> bool:
    return len(digits) in _LENGTHS_OF_PREFIX[int(digits[:4])]


def _passes_luhn(digits: bytes) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten."""
    return (sum(digits[::-1][::2].translate(_VALUES)) + sum(digits[::-1][1::2].translate(_DOUBLED))) % 10 == 0


_VALUES = bytes.maketrans(DIGITS, bytes(range(10)))
_DOUBLED = bytes.maketrans(DIGITS, bytes(sum(divmod(2 * value, 10)) for value in range(10)))


def _is_in_row_of_fours(text: bytes, start: int, end: int) -> bool:
    """Whether groups of four digits go on beside groups, as in a table. An expiry date or a CVC may follow."""
    before, after = text[max(0, start - 6) : start], text[end : end + 6]
    return bool(re.search(rb"\b\d{4}[ \-]$", before) or re.match(rb"[ \-]\d{4}\b", after))


# Length of an IBAN by country: SWIFT, IBAN Registry (ISO 13616-2). Equal to schwifty's copy of it (2026.10) and
# python-stdnum's (2.2) for all 89 countries. Territories whose accounts carry another's code have no row (GG, IM and JE
# have GB's; GP, RE, NC and nine more have FR's), nor have countries outside the registry (MA, SN, CI, …), whose lengths
# are what banks there write.
_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}


def iban_pattern() -> bytes:
    """Every country's code with as many characters as its IBANs have, in groups of four or in one piece.

    A pattern of any length would take the words after an account in groups with it.
    """
    forms = []
    for length, countries in _LENGTHS.items():
        fours, rest = divmod(length - 4, 4)
        code = countries.replace(" ", "|").encode()
        last = rb"%b?[A-Z0-9]{%d}" % (SEPARATOR, rest) if rest else b""
        forms.append(rb"(?:%b)\d\d(?:%b?[A-Z0-9]{4}){%d}%b" % (code, SEPARATOR, fours, last))
    return rb"(?i)\b(?:%b)\b" % b"|".join(forms)


def is_iban(text: bytes, start: int, end: int) -> bool:
    compact = text[start:end].translate(None, _SEPARATORS)
    return (
        2 <= int(compact[2:4]) <= 98  # what ISO 7064's MOD 97-10 gives
        and num_digits(compact) >= 8  # no country's has fewer; a word or a line of code has
        and (compact.isupper() or compact.islower())
        and int((compact[4:] + compact[:4]).translate(_AS_ONE_CASE).decode().translate(_AS_NUMBERS)) % 97 == 1
        and not is_joined(text, start, end, after=b"#=")
    )


_AS_ONE_CASE = bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_AS_NUMBERS = {ord("A") + letter: str(10 + letter) for letter in range(26)}
