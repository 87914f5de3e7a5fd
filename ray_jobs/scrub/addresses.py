"""Postal addresses, put together from the places that a model of named entities finds and the numbers beside them.

A place alone is no personal datum: "the capital of France" must stay. And the models miss most of a street address,
whose words they take for persons or firms. So an address is a run of places, numbers and unit words with nothing
between but separators and a few capitalised words, which has a number and says by its parts that it is one.
"""

import re
from typing import NamedTuple

PLACES = frozenset({"GPE", "LOC", "FAC"})
"""OntoNotes' labels: countries, cities and states; other locations; buildings, roads, airports."""


class Piece(NamedTuple):
    """text[start:end]: an entity of the model, a number or a unit word."""

    start: int
    end: int
    label: str


_NUMBER = re.compile(r"(?<![\w.,/\-§$€£])\d{1,6}[A-Za-z]?(?:[\-/]\d{1,4})?(?![\w@%]|[.,]\d)")
_YEAR = re.compile(r"(?:19|20)\d\d$")
_LONG = re.compile(r"\d{4,}")
_UNIT = re.compile(r"(?i:\b(?:apt|suite|unit|flat|p\. ?o\. ?box|po box|postbox|psc)\b\.?)|\b[A-Z]{2}(?= \d{5}\b)")
# Two words reach over "Fourth Avenue" and "Adolfo Ruiz"; with three, prose runs together.
_BETWEEN = re.compile(r"[\s,.>#]{0,6}(?:[^\W\d_a-z][^\W\d_]{0,30}[.'’\-]?[^\W\d_]{0,30}[\s,.>#]{1,6}){0,2}")
_LONGEST_BETWEEN = 140


def addresses(text: str, entities: list[Piece]) -> list[tuple[int, int]]:
    """Where addresses stand, in order. Offsets are characters."""
    places = [entity for entity in entities if entity.label in PLACES]
    others = [
        Piece(match.start(), match.end(), _label(match, label))
        for label, pattern in (("number", _NUMBER), ("unit", _UNIT))
        for match in pattern.finditer(text)
    ]
    free = _without_overlaps(sorted([*others, *places], key=lambda one: (one.start, -one.end)))
    runs: list[list[Piece]] = []
    for piece in free:
        gap = (runs[-1][-1].end, piece.start) if runs else (0, len(text))
        if runs and gap[1] - gap[0] <= _LONGEST_BETWEEN and _BETWEEN.fullmatch(text, *gap):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    found = [(run[0].start, run[-1].end) for run in runs if _is_address(text, run)]
    return [(start, start + len(text[start:end].rstrip())) for start, end in found]


def _label(match: re.Match[str], label: str) -> str:
    return "year" if label == "number" and _YEAR.match(match[0]) else label


def _without_overlaps(pieces: list[Piece]) -> list[Piece]:
    free: list[Piece] = []
    for piece in pieces:
        if not free or piece.start >= free[-1].end:
            free.append(piece)
    return free


def _is_address(text: str, run: list[Piece]) -> bool:
    """A number, and one of: a unit word, a road or building, a postal code beside a place, a house before two places.

    A number after a place is as often a score or an age.
    """
    labels = [piece.label for piece in run]
    if "number" not in labels:
        return False
    num_places = sum(label in PLACES for label in labels)
    has_code = any(piece.label == "number" and _LONG.match(text, piece.start, piece.end) for piece in run)
    return (
        "unit" in labels
        or "FAC" in labels
        or (num_places > 0 and has_code)
        or (num_places > 1 and labels[0] == "number")
    )
