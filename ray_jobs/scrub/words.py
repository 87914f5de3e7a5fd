"""Words as decontamination compares them: lower-case, without punctuation, whatever white space is between them.

A word is what stands between white space, less its punctuation and symbols (Unicode's categories P and S) and invisible
formatting (Cf). In scripts written without spaces (`ray_jobs.files.scripts`) every character is a word. Letters are
lower-cased one by one, where their lower case is one letter too; bytes that are no UTF-8 are letters. The normal form
of a text is its words with a space after each: two texts have the same words if, and only if, they have the same normal
form.
"""

import unicodedata
from functools import cache
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.files.scripts import UNSPACED, is_unspaced, unspaced_bits

Bytes: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]

_SPACE, _NOTHING, _LETTER, _WORD = 0, 1, 2, 3
"""What a character is: between words, not there at all, a part of a word, a word of its own."""

# Odd 64-bit constants of xxHash64 (Collet) and of MurmurHash3's fmix64 (Appleby).
_BYTE = np.uint64(0x9E3779B185EBCA87)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)

_NUM_CHARACTERS = 0x10000
_SYMBOLS = (0x1F000, 0x20000)


def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    category = unicodedata.category(character)
    if category[0] in "PS" or category == "Cf":
        return _NOTHING
    return _WORD if UNSPACED.match(character) else _LETTER


@cache
def character_tables() -> tuple[Bytes, npt.NDArray[np.uint16], Bytes]:
    """Of each character below U+10000 its kind, and what it becomes; and which are words of their own beyond, where
    emoji, ideographs and rare letters are."""
    characters = [chr(code) for code in range(_NUM_CHARACTERS)]
    kinds = np.fromiter(map(_kind, characters), np.uint8, _NUM_CHARACTERS)
    lower = [one.lower() for one in characters]
    becomes = [ord(low) if len(low) == 1 else code for code, low in enumerate(lower)]
    return kinds, np.array(becomes, dtype=np.uint16), unspaced_bits()


def room_for(num_bytes: int) -> tuple[int, int]:
    """Most bytes of the normal form of so many bytes, and most words: a letter may grow from two bytes to three, and a
    character that is a word has a space on both sides."""
    return 2 * num_bytes + 2, num_bytes // 2 + 2


@numba.njit(cache=True, inline="always")
def mix(value: np.uint64) -> np.uint64:  # pragma: no cover
    value = (value ^ (value >> np.uint64(33))) * _MIX_1
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return value ^ (value >> np.uint64(33))


@numba.njit(cache=True, inline="always")
def _decode(data: Bytes, i: int, end: int) -> tuple[int, int]:  # pragma: no cover
    """(character, its bytes) at i; (-1, 1) where there is no UTF-8 (RFC 3629: none too long, no surrogates)."""
    lead = data[i]
    if 0xC2 <= lead < 0xE0 and i + 1 < end and data[i + 1] & 0xC0 == 0x80:
        return (lead & 0x1F) << 6 | (data[i + 1] & 0x3F), 2
    if 0xE0 <= lead < 0xF0 and i + 2 < end and data[i + 1] & 0xC0 == 0x80 and data[i + 2] & 0xC0 == 0x80:
        code = (np.int64(lead) & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (data[i + 2] & 0x3F)
        if code >= 0x800 and not 0xD800 <= code < 0xE000:
            return code, 3
    if (
        0xF0 <= lead < 0xF5
        and i + 3 < end
        and data[i + 1] & 0xC0 == 0x80
        and data[i + 2] & 0xC0 == 0x80
        and data[i + 3] & 0xC0 == 0x80
    ):
        code = (
            (np.int64(lead) & 0x07) << 18
            | (np.int64(data[i + 1]) & 0x3F) << 12
            | (np.int64(data[i + 2]) & 0x3F) << 6
            | (data[i + 3] & 0x3F)
        )
        if 0x10000 <= code < 0x110000:
            return code, 4
    return -1, 1


@numba.njit(cache=True)
def split(
    data: Bytes,
    start: int,
    end: int,
    kinds: Bytes,
    becomes: npt.NDArray[np.uint16],
    unspaced: Bytes,
    out: Bytes,
    hashes: Hashes,
    places: Numbers,
) -> int:  # pragma: no cover
    """The words of data[start:end]; returns their number.

    Args:
        kinds, becomes, unspaced: `character_tables()`.
        out: their normal form; `room_for(end - start)` says how much room it and the words need.
        hashes: of each word.
        places: of each word, where it begins in `out` and in `data`; after the last, where the next would begin.
    """
    num_words = 0
    written = 0
    value = np.uint64(0)
    in_word = False
    i = start
    while i < end:
        byte = data[i]
        length = 1
        code = int(byte)
        if byte < 0x80:
            # Most characters, most of them of the word that the last one was of: a loop of their own is twice as fast.
            if in_word:
                while kinds[byte] == _LETTER:
                    out[written] = becomes[byte]
                    value = value * _BYTE + np.uint64(out[written])
                    written += 1
                    i += 1
                    if i == end:
                        break
                    byte = data[i]
                    if byte >= 0x80:
                        break
                if i == end or byte >= 0x80:
                    continue
            kind = kinds[byte]
            code = int(byte)
        else:
            code, length = _decode(data, i, end)
            if code < 0:
                kind = _LETTER
            elif code < _NUM_CHARACTERS:
                kind = kinds[code]
            elif _SYMBOLS[0] <= code < _SYMBOLS[1]:
                kind = _NOTHING
            else:
                kind = _WORD if is_unspaced(code, unspaced) else _LETTER
        if kind == _NOTHING:
            i += length
            continue
        if in_word and kind != _LETTER:
            written = _end_word(num_words, value, out, written, hashes)
            num_words += 1
            in_word = False
        if kind != _SPACE:
            if not in_word:
                places[num_words, 0] = written
                places[num_words, 1] = i
                value = np.uint64(0)
                in_word = True
            before = written
            if 0 <= code < _NUM_CHARACTERS:
                written = _encode(becomes[code], out, written)
            else:
                for k in range(length):
                    out[written + k] = data[i + k]
                written += length
            for k in range(before, written):
                value = value * _BYTE + np.uint64(out[k])
            if kind == _WORD:
                written = _end_word(num_words, value, out, written, hashes)
                num_words += 1
                in_word = False
        i += length
    if in_word:
        written = _end_word(num_words, value, out, written, hashes)
        num_words += 1
    places[num_words, 0] = written
    places[num_words, 1] = end
    return num_words


@numba.njit(cache=True, inline="always")
def _end_word(word: int, value: np.uint64, out: Bytes, written: int, hashes: Hashes) -> int:  # pragma: no cover
    out[written] = 32
    hashes[word] = mix(value)
    return written + 1


@numba.njit(cache=True, inline="always")
def _encode(code: np.uint16, out: Bytes, at: int) -> int:  # pragma: no cover
    """Writes a character below U+10000; returns where it ends."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
        out[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    out[at] = 0xE0 | code >> 12
    out[at + 1] = 0x80 | (code >> 6 & 0x3F)
    out[at + 2] = 0x80 | (code & 0x3F)
    return at + 3
