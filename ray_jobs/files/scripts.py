"""Scripts that are written without spaces between words, where each character is taken for a word of its own.

Which they are: those whose line breaks take a dictionary (class SA of Unicode's UAX #14: Thai, Lao, Khmer, Myanmar, the
Tai scripts, Ahom), those that break between any two characters (class ID: Han, kana, Yi, and Bopomofo beside them), and
Tibetan, whose mark U+0F0B ends syllables and not words. Hangul is written with spaces.

The ranges are those of the property Script in Unicode 18.0.0 (Scripts.txt), to which come the letters and marks that
only these scripts share (ScriptExtensions.txt), such as the prolonged sound mark of both kana. So punctuation that
other scripts use too ("。", "、") is none of them. Two things differ from Unicode's table: planes 2 and 3 are taken as
a whole, since all that will ever stand there is Han (The Unicode Standard, 2.8); and U+02EA and U+02EB, two tone signs
of Bopomofo, are left out, so that each character here takes three bytes of UTF-8 or four. Kernels count on that for the
room that words need: words of one byte are kept apart by a space or by three bytes.
"""

import itertools
import re
from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Range: TypeAlias = tuple[int, int]

UNICODE_VERSION = "18.0.0"
HAN_PLANES = (0x20000, 0x3FFFF)
SCRIPTS: Mapping[str, tuple[Range, ...]] = {
    "Thai": ((0x0E01, 0x0E3A), (0x0E40, 0x0E5B)),
    "Lao": (
        *((0x0E81, 0x0E82), (0x0E84, 0x0E84), (0x0E86, 0x0E8A), (0x0E8C, 0x0EA3), (0x0EA5, 0x0EA5), (0x0EA7, 0x0EBD)),
        *((0x0EC0, 0x0EC4), (0x0EC6, 0x0EC6), (0x0EC8, 0x0ECE), (0x0ED0, 0x0ED9), (0x0EDC, 0x0EDF)),
    ),
    "Tibetan": (
        *((0x0F00, 0x0F47), (0x0F49, 0x0F6C), (0x0F71, 0x0F97), (0x0F99, 0x0FBC), (0x0FBE, 0x0FCC), (0x0FCE, 0x0FD4)),
        (0x0FD9, 0x0FDA),
    ),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FE), (0xAA60, 0xAA7F), (0x116D0, 0x116E3)),
    "Khmer": ((0x1780, 0x17DD), (0x17E0, 0x17E9), (0x17F0, 0x17F9), (0x19E0, 0x19FF)),
    "Tai_Le": ((0x1950, 0x196D), (0x1970, 0x1974)),
    "New_Tai_Lue": ((0x1980, 0x19AB), (0x19B0, 0x19C9), (0x19D0, 0x19DA), (0x19DE, 0x19DF)),
    "Tai_Tham": ((0x1A20, 0x1A5E), (0x1A60, 0x1A7C), (0x1A7F, 0x1A89), (0x1A90, 0x1A99), (0x1AA0, 0x1AAD)),
    "Tai_Viet": ((0xAA80, 0xAAC2), (0xAADB, 0xAADF)),
    "Ahom": ((0x11700, 0x1171A), (0x1171D, 0x1172B), (0x11730, 0x11746)),
    "Bopomofo": ((0x3105, 0x312F), (0x31A0, 0x31BF)),
    "Hiragana": (
        *((0x3041, 0x3096), (0x309D, 0x309F)),
        *((0x1B001, 0x1B11F), (0x1B123, 0x1B123), (0x1B132, 0x1B132), (0x1B150, 0x1B152), (0x1F200, 0x1F200)),
    ),
    "Katakana": (
        *((0x30A1, 0x30FA), (0x30FD, 0x30FF), (0x31F0, 0x31FF), (0x32D0, 0x32FE), (0x3300, 0x3357), (0xFF66, 0xFF6F)),
        *((0xFF71, 0xFF9D), (0x1AFF0, 0x1AFF3), (0x1AFF5, 0x1AFFB), (0x1AFFD, 0x1AFFE), (0x1B000, 0x1B000)),
        *((0x1B120, 0x1B122), (0x1B124, 0x1B128), (0x1B155, 0x1B155), (0x1B164, 0x1B168)),
    ),
    "Han": (
        *((0x2E80, 0x2E99), (0x2E9B, 0x2EF3), (0x2F00, 0x2FD5), (0x3005, 0x3005), (0x3007, 0x3007), (0x3021, 0x3029)),
        *((0x3038, 0x303B), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFA6D), (0xFA70, 0xFAD9)),
        *((0x16FE2, 0x16FE3), (0x16FF0, 0x16FF6), HAN_PLANES),
    ),
    "Yi": ((0xA000, 0xA48C), (0xA490, 0xA4C6)),
}
SHARED_LETTERS: tuple[Range, ...] = (
    *((0x3006, 0x3006), (0x302A, 0x302D), (0x3031, 0x3035), (0x303C, 0x303C), (0x3099, 0x309A), (0x30FC, 0x30FC)),
    *((0xFF70, 0xFF70), (0xFF9E, 0xFF9F)),
)
"""Letters and marks that Unicode gives to several of these scripts and to no other."""

RANGES: tuple[Range, ...] = tuple(sorted(itertools.chain(*SCRIPTS.values(), SHARED_LETTERS)))
UNSPACED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in RANGES) + "]")
"""One such character."""
TABLE_END = HAN_PLANES[1] + 1


@cache
def unspaced_bits() -> Bytes:
    """The table for kernels: bit c & 7 of byte c >> 3 says of the character c below TABLE_END whether it is one."""
    bits = np.zeros(TABLE_END, dtype=np.uint8)
    for first, last in RANGES:
        bits[first : last + 1] = 1
    return np.packbits(bits, bitorder="little")


@numba.njit(cache=True, inline="always")
def is_unspaced(code: int | np.int64, bits: Bytes) -> bool:  # pragma: no cover
    """Whether the character, given as its code point, is one of `unspaced_bits()`."""
    return bool(code < 8 * len(bits) and (bits[code >> 3] >> np.uint8(code & 7)) & np.uint8(1))


@numba.njit(cache=True, inline="always")
def unspaced_length(data: Bytes, i: int, end: int, bits: Bytes) -> int:  # pragma: no cover
    """Bytes of the character of these scripts that begins at data[i], 3 or 4; 0 where none does, sound UTF-8 or not."""
    lead = np.int64(data[i])
    if lead < 0xE0 or lead > 0xF0 or i + 2 >= end:
        return 0
    second, third = np.int64(data[i + 1]), np.int64(data[i + 2])
    if second & 0xC0 != 0x80 or third & 0xC0 != 0x80:
        return 0
    code = (lead & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F)
    if lead < 0xF0:
        # Forms that are too long name characters below U+0800, and surrogates none: neither is in the table.
        return 3 if is_unspaced(code, bits) else 0
    if i + 3 >= end or np.int64(data[i + 3]) & 0xC0 != 0x80 or second < 0x90:
        return 0
    code = (second & 0x3F) << 12 | (third & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
    return 4 if is_unspaced(code, bits) else 0
