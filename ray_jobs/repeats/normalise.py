"""Text in which lines count as equal: CCNet's normalisation (Wenzek et al. 2020, section 3.1), a character at a time.

Lower case, every decimal digit a 0, without punctuation (Unicode's P), accents and other marks (M, after canonical
decomposition), format and control characters. White space stays, symbols (S: $ + < = >) stay, and Hangul syllables,
which decompose into several letters, stay whole. A byte that is no UTF-8 becomes U+FFFD.
"""

import functools
import unicodedata
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.repeats.words import Bytes, Offsets

Table: TypeAlias = npt.NDArray[np.uint32]

# Planes 0 and 1 hold every cased letter, digit and punctuation; what lies beyond (rare ideographs) stays as it is.
TABLE_CHARACTERS = 0x20000
LEFT_OUT = 0xFFFFFFFF
WHITE_SPACE = "\t\n\v\f\r"
_REPLACEMENT = 0xFFFD


def normalise(data: Bytes, offsets: Offsets) -> tuple[Bytes, Offsets]:
    """The normalised documents, end to end, each with as many newlines as before, and their offsets (int64 [n + 1])."""
    used = data[offsets[0] : offsets[-1]]
    table = _table(TABLE_CHARACTERS if used.size and used.max() >= 128 else 128)
    # A byte that is no UTF-8 grows most, to three.
    out = np.empty(3 * used.size if len(table) > 128 else used.size, dtype=np.uint8)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    _normalise(data, offsets, table, out, out_offsets)
    return out[: out_offsets[-1]], out_offsets


def normalised(character: str) -> str:
    """What becomes of one character: one, or none."""
    if character in WHITE_SPACE:
        return character
    kept = [c for c in unicodedata.normalize("NFD", character.lower()) if not _is_left_out(c)]
    if len(kept) > 1:
        return character
    return "".join("0" if unicodedata.category(c) == "Nd" else c for c in kept)


def _is_left_out(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "MP" or category == "Cf" or character < " " or character == "\x7f"


@functools.cache
def _table(num_characters: int) -> Table:
    """Code point -> code point, or LEFT_OUT. The large one takes a fifth of a second, once a process."""
    mapped = [normalised(chr(point)) for point in range(num_characters)]
    return np.array([ord(one) if one else LEFT_OUT for one in mapped], dtype=np.uint32)


@numba.njit(cache=True, inline="always")
def _continues(data: Bytes, i: int, end: int, number: int) -> bool:  # pragma: no cover
    """Whether so many bytes from i on continue a character."""
    found = 0
    while found < number and i + found < end and data[i + found] & 0xC0 == 0x80:
        found += 1
    return found == number


@numba.njit(cache=True, inline="always")
def _decode(data: Bytes, i: int, end: int) -> tuple[int, int]:  # pragma: no cover
    """The code point of the character that begins at i, and its bytes; U+FFFD and 1 where none does."""
    lead = np.int64(data[i])
    if 0xC2 <= lead <= 0xDF and _continues(data, i + 1, end, 1):
        return int((lead & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F)), 2
    if 0xE0 <= lead <= 0xEF and _continues(data, i + 1, end, 2):
        point = (lead & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)
        if point >= 0x800:
            return int(point), 3
    elif 0xF0 <= lead <= 0xF4 and _continues(data, i + 1, end, 3):
        point = (lead & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
        point |= (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
        if point >= 0x10000:
            return int(point), 4
    return _REPLACEMENT, 1


@numba.njit(cache=True, inline="always")
def _encode(point: int, out: Bytes, end: int) -> int:  # pragma: no cover
    """Writes a character; returns where it ends."""
    if point < 0x80:
        out[end] = point
        return end + 1
    if point < 0x800:
        out[end], out[end + 1] = 0xC0 | point >> 6, 0x80 | point & 0x3F
        return end + 2
    if point < 0x10000:
        out[end], out[end + 1], out[end + 2] = 0xE0 | point >> 12, 0x80 | point >> 6 & 0x3F, 0x80 | point & 0x3F
        return end + 3
    out[end], out[end + 1] = 0xF0 | point >> 18, 0x80 | point >> 12 & 0x3F
    out[end + 2], out[end + 3] = 0x80 | point >> 6 & 0x3F, 0x80 | point & 0x3F
    return end + 4


@numba.njit(cache=True)
def _normalise(
    data: Bytes, offsets: Offsets, table: Table, out: Bytes, out_offsets: Offsets
) -> None:  # pragma: no cover
    end = 0
    for document in range(len(offsets) - 1):
        i, stop = offsets[document], offsets[document + 1]
        while i < stop:
            if data[i] < 0x80:
                mapped = table[data[i]]
                out[end] = np.uint8(mapped & 0xFF)
                end += mapped != LEFT_OUT
                i += 1
                continue
            point, size = _decode(data, i, stop)
            i += size
            mapped = table[point] if point < len(table) else np.uint32(point)
            if mapped != LEFT_OUT:
                end = _encode(int(mapped), out, end)
        out_offsets[document + 1] = end
