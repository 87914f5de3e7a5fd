"""Words of text, cut as the regular expressions of GPT-2 (Radford et al., 2019) and Llama 3 (Meta, 2024) cut it.

Each pattern is a list of alternatives of which the first counts that matches at a place; every character belongs to
some word. What the alternatives are stands at the functions below; `bpe` has them as regular expressions. The loops
read sound UTF-8 and look at each byte once, but for white space, which they may look at twice.
"""

import itertools
from enum import IntEnum
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.characters import LETTER, NEWLINE, NUMBER, OTHER, SPACE

Bytes: TypeAlias = npt.NDArray[np.uint8]
Eights: TypeAlias = npt.NDArray[np.uint64]


class Pattern(IntEnum):
    GPT2 = 0
    LLAMA3 = 1


_APOSTROPHE, _BLANK = ord("'"), ord(" ")
_MOST_DIGITS = 3  # a word of Llama 3's
# Eight bytes at a time: a bit of each, the highest of each, what makes them small letters, and what lifts "a", and what
# lifts the one behind "z", to the highest bit. Unsigned, as numba lets nothing signed overflow.
_EACH = np.uint64(0x0101010101010101)
_TOPS = np.uint64(0x8080808080808080)
_SMALL, _BELOW_TOP = np.uint64(0x2020202020202020), np.uint64(0x7F7F7F7F7F7F7F7F)
_FROM_A, _BEHIND_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)


def eights(data: Bytes) -> Eights:
    """All runs of eight bytes as little-endian numbers, a view: uint64 [bytes - 7]."""
    return np.ndarray((max(len(data) - 7, 0),), "<u8", data, strides=(1,))


def split(data: bytes, classes: Bytes, pattern: Pattern) -> list[bytes]:
    """The words of sound UTF-8. `classes` is uint8 [0x110000], as `characters.classes` gives it."""
    view, ends, i = np.frombuffer(data, np.uint8), [0], 0
    while i < len(data):
        i = word_end(view, eights(view), i, len(data), classes, int(pattern))
        ends.append(i)
    return [data[first:end] for first, end in itertools.pairwise(ends)]


@numba.njit(cache=True, inline="always")
def word_end(data: Bytes, runs: Eights, i: int, end: int, classes: Bytes, pattern: int) -> int:  # pragma: no cover
    """Past the last byte of the word that begins at i, of a text that goes to `end`."""
    if pattern == 0:
        return _gpt2_end(data, runs, i, end, classes)
    return _llama3_end(data, runs, i, end, classes)


@numba.njit(cache=True, inline="always")
def _gpt2_end(data: Bytes, runs: Eights, i: int, end: int, classes: Bytes) -> int:  # pragma: no cover
    """'s|'t|'re|'ve|'m|'ll|'d, or letters, or numbers, or others, each with a blank before them or none, or white space
    without its last character where other text follows, or white space."""
    first = data[i]
    if first == _APOSTROPHE:
        size = _contraction(data, i, end, False)
        if size:
            return i + size
    at = i + 1 if first == _BLANK and i + 1 < end else i
    kind, size = _class_at(data, at, classes)
    if kind == LETTER:
        return _letters_end(data, runs, at + size, end, classes)
    if kind < SPACE:
        return _run_end(data, at + size, end, classes, kind)
    return _white_end(data, i, end, classes, False)


@numba.njit(cache=True, inline="always")
def _llama3_end(data: Bytes, runs: Eights, i: int, end: int, classes: Bytes) -> int:  # pragma: no cover
    """(?i:'s|'t|'re|'ve|'m|'ll|'d), or letters with any other character before them but a number or a line end, or one
    to three numbers, or others with a blank before them or none and all line ends behind them, or white space to its
    last line end, or white space without its last character where other text follows, or white space."""
    first = data[i]
    if first == _APOSTROPHE:
        size = _contraction(data, i, end, True)
        if size:
            return i + size
    kind, size = _class_at(data, i, classes)
    at = i + size
    if kind == LETTER:
        return _letters_end(data, runs, at, end, classes)
    if kind == NUMBER:
        for _ in range(_MOST_DIGITS - 1):
            if at < end:
                kind, size = _class_at(data, at, classes)
                at += size if kind == NUMBER else 0
        return at
    behind, size = _class_at(data, at, classes) if at < end else (SPACE, 0)
    if behind == LETTER and kind != NEWLINE:
        return _letters_end(data, runs, at + size, end, classes)
    if kind == OTHER or (first == _BLANK and behind == OTHER):
        at = _run_end(data, at, end, classes, OTHER)
        while at < end and classes[data[at]] == NEWLINE:
            at += 1
        return at
    return _white_end(data, i, end, classes, True)


@numba.njit(cache=True, inline="always")
def _class_at(data: Bytes, i: int, classes: Bytes) -> tuple[int, int]:  # pragma: no cover
    """Of the character that begins at i, and its bytes."""
    lead = int(data[i])
    if lead < 0x80:
        return int(classes[lead]), 1
    if lead < 0xE0:
        return int(classes[(lead & 0x1F) << 6 | (int(data[i + 1]) & 0x3F)]), 2
    point = (lead & 0x0F) << 12 | (int(data[i + 1]) & 0x3F) << 6 | (int(data[i + 2]) & 0x3F)
    if lead < 0xF0:
        return int(classes[point]), 3
    return int(classes[(point & 0x7FFF) << 6 | (int(data[i + 3]) & 0x3F)]), 4


@numba.njit(cache=True, inline="always")
def _run_end(data: Bytes, i: int, end: int, classes: Bytes, kind: int) -> int:  # pragma: no cover
    """Past the characters of one class from i on."""
    while i < end:
        found, size = _class_at(data, i, classes)
        if found != kind:
            break
        i += size
    return i


@numba.njit(cache=True, inline="always")
def _letters_end(data: Bytes, runs: Eights, i: int, end: int, classes: Bytes) -> int:  # pragma: no cover
    """Past the letters from i on; those of ASCII eight at a time."""
    while i < len(runs):
        eight = runs[i]
        small = (eight | _SMALL) & _BELOW_TOP
        others = ~((small + _FROM_A) & ~(small + _BEHIND_Z) & ~eight) & _TOPS
        if others == 0:
            i += 8
            continue
        before = ((others - np.uint64(1)) & ~others & _TOPS) >> np.uint64(7)  # a bit of each byte before the first
        i += np.int64((before * _EACH) >> np.uint64(56))  # type: ignore[assignment]  # their number
        if i < end and data[i] < 0x80:
            return i
        break
    return _run_end(data, i, end, classes, LETTER) if i < end else end


@numba.njit(cache=True)
def _white_end(data: Bytes, i: int, end: int, classes: Bytes, to_newline: bool) -> int:  # pragma: no cover
    """Past the white space from i on: to its last line end where that is asked for and there is one, or else without
    its last character where other text follows, as long as one is left."""
    at, last, behind_newline = i, i, i
    while at < end:
        kind, size = _class_at(data, at, classes)
        if kind < SPACE:
            break
        last = at
        at += size
        if kind == NEWLINE:
            behind_newline = at
    if to_newline and behind_newline > i:
        return behind_newline
    return at if at == end or last == i else last


@numba.njit(cache=True)
def _contraction(data: Bytes, i: int, end: int, any_case: bool) -> int:  # pragma: no cover
    """The bytes of 's, 't, 're, 've, 'm, 'll or 'd at i, or 0. ſ (U+017F) is an s of another case."""
    if i + 1 >= end:
        return 0
    case = 0x20 if any_case else 0  # only letters come to be letters by this bit
    one = data[i + 1] | case
    if one == 0x73 or one == 0x74 or one == 0x6D or one == 0x64:
        return 2
    if i + 2 >= end:
        return 0
    if any_case and data[i + 1] == 0xC5 and data[i + 2] == 0xBF:
        return 3
    two = data[i + 2] | case
    if (one == 0x6C and two == 0x6C) or (two == 0x65 and (one == 0x72 or one == 0x76)):
        return 3
    return 0
