"""Word lists: which of a list's terms a text holds as whole words, and how much of the text they are.

Text and terms are compared case-folded and in Unicode's form NFC. A term matches where it does not begin or end within
a word: no letter, digit or mark stands before or behind it. Scripts that are written without spaces
(`ray_jobs.files.scripts`) set no words apart, so that a term's end in one of them may stand anywhere but before a mark,
which would make its last character another one; behind a Hangul syllable more may follow, since particles are joined to
their word. White space within a term stands for any run of it.

Texts that a regular expression knows to hold no term are passed over (`prefilter.py`). In others every place is tried
where a term may begin, and from there a trie of bytes is walked to the longest term that ends as it may. Matches do not
overlap: the next is looked for behind the last.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.files import scripts
from ray_jobs.quality.prefilter import Prefilter

Bytes: TypeAlias = npt.NDArray[np.uint8]

# Classes of characters.
APART, SPACE, SPACED, HANGUL, UNSPACED, MARK = 0, 1, 2, 3, 4, 5
_HANGUL_RANGES = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7FF))
_WHITE = re.compile(r"\s+")
_ASCII = re.compile(rb"[\x00-\x7f]")
FOLDED_AT_ONCE = 1 << 20
"""Bytes at least, of a text that is not ASCII."""
# Beyond, all characters are taken as apart, but for Han.
_CLASSED = scripts.HAN_PLANES[0]


@cache
def classes() -> Bytes:
    """Class of each character: uint8 [0x110000]."""
    table = np.full(0x110000, APART, dtype=np.uint8)
    marks = []
    for code in range(_CLASSED):
        category = unicodedata.category(chr(code))
        if category[0] in "LN":
            table[code] = SPACED
        elif category[0] == "M":
            marks.append(code)
        elif chr(code).isspace():
            table[code] = SPACE
    table[ord("_")] = SPACED
    for first, last in _HANGUL_RANGES:
        table[first : last + 1] = HANGUL
    for first, last in scripts.RANGES:
        # Their punctuation and symbols are apart, as any other.
        codes = [code for code in range(first, last + 1) if unicodedata.category(chr(code))[0] not in "PS"]
        table[codes] = UNSPACED
    table[marks] = MARK
    return table


def folded(text: bytes) -> bytes:
    """The form in which texts and terms are compared, as sound UTF-8."""
    if text.isascii():
        return text.lower()
    # In pieces, for characters take up to four bytes in Python's strings, of which folding makes several. An ASCII
    # character neither joins with what stands before it nor depends on it.
    pieces, start = [], 0
    while start < len(text):
        cut = _ASCII.search(text, start + FOLDED_AT_ONCE)
        end = cut.start() if cut else len(text)
        pieces.append(_folded(text[start:end]))
        start = end
    return b"".join(pieces)


def _folded(text: bytes) -> bytes:
    # Of I and i with and without a dot, which Turkish tells apart and Unicode's folding leaves apart, one is made.
    same = text.decode(errors="replace").casefold().replace("ı", "i").replace("i\u0307", "i")
    return unicodedata.normalize("NFC", same).encode()


@dataclass(frozen=True, slots=True)
class Found:
    """What one text holds of a list."""

    share: float
    """Characters of words (letters, digits, marks) in terms, of all such characters; 0 of a text without any."""
    num_terms: int
    """Distinct terms."""


class Matcher:
    """The terms of one list or of several, ready to be looked for."""

    def __init__(self, terms: Iterable[str]):
        self.terms: Sequence[str] = sorted({_WHITE.sub(" ", term.strip()) for term in terms} - {""})
        forms = [folded(term.encode()) for term in self.terms]
        self._children, self._ends = _trie(forms)
        self._prefilter = Prefilter([form.decode() for form in forms], folded)

    def find(self, text: bytes) -> list[int]:
        """Places in `terms` of what the text holds, in order of occurrence."""
        return self._scan(text)[0].tolist()

    def measure(self, text: bytes) -> Found:
        if not self._prefilter.may_hold_one(text):
            return Found(0.0, 0)
        terms, matched, characters = self._scan(text)
        return Found(matched / characters if characters else 0.0, len(np.unique(terms)))

    def _scan(self, text: bytes) -> tuple[npt.NDArray[np.int32], int, int]:
        data = np.frombuffer(folded(text), dtype=np.uint8)
        terms = np.empty(len(data) + 1, dtype=np.int32)
        found, matched, characters = _scan(data, classes(), self._children, self._ends, terms)
        return terms[:found], matched, characters


def _trie(terms: Sequence[bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Children of each node by byte (0: none), int32 [nodes, 256], and the term that ends at each node, or -1."""
    nodes: list[dict[int, int]] = [{}]
    ends = [-1]
    for number, term in enumerate(terms):
        node = 0
        for byte in term:
            if byte not in nodes[node]:
                nodes[node][byte] = len(nodes)
                nodes.append({})
                ends.append(-1)
            node = nodes[node][byte]
        if ends[node] < 0:  # terms that fold alike count as the first of them
            ends[node] = number
    children = np.zeros((len(nodes), 256), dtype=np.int32)
    for node, by_byte in enumerate(nodes):
        for byte, child in by_byte.items():
            children[node, byte] = child
    return children, np.array(ends, dtype=np.int32)


@numba.njit(cache=True)
def _decode(data: Bytes, at: int) -> tuple[int, int]:  # pragma: no cover
    """The character at a place of sound UTF-8, and its length in bytes."""
    lead = int(data[at])
    if lead < 0x80:
        return lead, 1
    code, length = (lead & 0x1F, 2) if lead < 0xE0 else ((lead & 0x0F, 3) if lead < 0xF0 else (lead & 0x07, 4))
    for i in range(1, length):
        code = (code << 6) | (int(data[at + i]) & 0x3F)
    return code, length


@numba.njit(cache=True)
def _joins(left: int, right: int) -> bool:  # pragma: no cover
    """Whether no term begins or ends between characters of these classes; a mark on the left has its letter's."""
    return right == MARK or (SPACED <= left <= HANGUL and SPACED <= right <= HANGUL)


@numba.njit(cache=True)
def _scan(
    data: Bytes,
    classes: Bytes,
    children: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    terms: npt.NDArray[np.int32],
) -> tuple[int, int, int]:  # pragma: no cover
    """Writes the terms found into `terms`; their number, their characters of words, and those of the whole text."""
    size = len(data)
    found = 0
    matched = 0
    characters = 0
    before = APART
    at = 0
    while at < size:
        code, length = (int(data[at]), 1) if data[at] < 0x80 else _decode(data, at)
        here = classes[code]
        first_child = children[0, data[at]]
        if first_child and not _joins(before, here):
            # The longest term that begins here.
            node = 0
            place = at
            last = here
            inside = 0
            best_term = -1
            best_end = at
            best_inside = 0
            best_last = here
            while place < size:
                code_inside, length_inside = (int(data[place]), 1) if data[place] < 0x80 else _decode(data, place)
                last_here = classes[code_inside]
                if last_here == SPACE:
                    node = children[node, 32]
                    while place < size:  # a run of it is one
                        code_inside, length_inside = _decode(data, place)
                        if classes[code_inside] != SPACE:
                            break
                        place += length_inside
                else:
                    for i in range(length_inside):
                        node = children[node, data[place + i]]
                        if node == 0:
                            break
                    place += length_inside
                if node == 0:
                    break
                if last_here != MARK:
                    last = last_here
                inside += last_here >= SPACED
                if ends[node] >= 0:
                    behind = APART
                    if place < size:
                        code_behind, _ = _decode(data, place)
                        behind = classes[code_behind]
                    if (last == HANGUL and behind != MARK) or not _joins(last, behind):
                        best_term, best_end, best_inside, best_last = ends[node], place, inside, last
            if best_term >= 0:
                terms[found] = best_term
                found += 1
                matched += best_inside
                characters += best_inside
                at = best_end
                before = best_last
                continue
        characters += here >= SPACED
        if here != MARK:
            before = here
        at += length
    return found, matched, characters
