"""From text to the words and sentences of a language model: a compiled loop over the UTF-8 bytes of Arrow columns.

As in CCNet (Wenzek et al. 2020; its text_normalizer.py) letters become lower case, accents (category Mn after canonical
decomposition) go, every decimal digit becomes 0, marks of Unicode become their ASCII counterparts, and a sentence is a
line. In CCNet a SentencePiece model cuts the line; here words are what stands between white space, and a punctuation
mark or symbol is a word of its own, or white space under the choice `ccnet-words`. In scripts written without spaces
(`ray_jobs.files.scripts`) every character is a word. Hangul stays in syllables. What is no valid UTF-8 separates words;
control and format characters are left out.

Normalised text has one space between words and a newline after each sentence. There are no empty sentences, where CCNet
scores an empty line as a sentence's end.
"""

import unicodedata
from functools import cache
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.quality import Tokens
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.scripts import HAN_PLANES, UNSPACED

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]

# CCNet's, without its １ (a digit), and with one mark for one: "—" is "-", "．" is ".".
ASCII_MARKS = dict(
    zip("，。、„”“«»」「《》´∶：？！（）；–—．～’━〈〉【】％►", ',.,"""""""""\'::?!();--.~\'-<>[]%-', strict=True)
)
ELLIPSIS = ord("…")
"""Three full stops."""
NEWLINE = ord("\n")
SPACE = ord(" ")

# What becomes of a character: the table's upper byte. Its lower ones are the character that is written.
_IN_WORD, _ALONE, _SEPARATES, _ENDS_SENTENCE, _LEFT_OUT = range(5)
_CHARACTER = (1 << 24) - 1
_TABLE_END, _HAN_END = HAN_PLANES[0], HAN_PLANES[1] + 1
"""Between them stand rare Han characters, each a word as it is; beyond, nothing that is text."""


def normalise(data: Bytes, offsets: Offsets, tokens: Tokens) -> tuple[Bytes, Offsets]:
    """The normalised documents, end to end, and their offsets."""
    # A character of b bytes becomes at most 2·b: a mark its space, a letter of 2 bytes one of 3.
    out = np.empty(2 * int(offsets[-1] - offsets[0]) + len(offsets), dtype=np.uint8)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    _normalise(data, offsets, _table(tokens), out, out_offsets)
    return out[: out_offsets[-1]], out_offsets


def words_of(text: str, tokens: Tokens = "ccnet") -> list[list[str]]:
    """Sentences of one text, as lists of words."""
    data, _ = normalise(*text_buffers(pa.array([text.encode(errors="surrogatepass")], pa.large_binary())), tokens)
    return [line.split(" ") for line in data.tobytes().decode().splitlines()]


@cache
def _table(tokens: Tokens) -> npt.NDArray[np.uint32]:
    return np.array([_entry(chr(code), tokens) for code in range(_TABLE_END)], dtype=np.uint32)


def _entry(character: str, tokens: Tokens) -> int:
    if character == "\n":
        return _ENDS_SENTENCE << 24
    if character.isspace():
        return _SEPARATES << 24
    category = unicodedata.category(character)
    if category == "Mn" or category[0] == "C":
        return _LEFT_OUT << 24
    if category == "Nd":
        return _IN_WORD << 24 | ord("0")
    if category[0] in "PS":
        mark = ord(ASCII_MARKS.get(character, character))
        return (_ALONE << 24 | mark) if tokens == "ccnet" else _SEPARATES << 24
    base = [c for c in unicodedata.normalize("NFD", character.lower()) if unicodedata.category(c) != "Mn"]
    written = base[0] if len(base) == 1 else character.lower()[0]
    return (_ALONE if UNSPACED.match(written) else _IN_WORD) << 24 | ord(written)


@numba.njit(cache=True, inline="always")
def _decode(data: Bytes, i: int, end: int) -> tuple[int, int]:  # pragma: no cover
    """(code point, bytes) of the character at i; (-1, 1) where there is none, as at surrogates and overlong forms."""
    lead = int(data[i])
    if lead < 0x80:
        return lead, 1
    length = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 0
    if length == 0 or i + length > end:
        return -1, 1
    code = lead & (0x7F >> length)
    for k in range(1, length):
        byte = int(data[i + k])
        if byte & 0xC0 != 0x80:
            return -1, 1
        code = code << 6 | byte & 0x3F
    if (length == 3 and (code < 0x800 or 0xD800 <= code < 0xE000)) or (
        length == 4 and (code < 0x10000 or code > 0x10FFFF)
    ):
        return -1, 1
    return code, length


@numba.njit(cache=True, inline="always")
def _encode(code: int, out: Bytes, end: int) -> int:  # pragma: no cover
    """Writes a character at `end`; returns the new end."""
    if code < 0x80:
        out[end] = code
        return end + 1
    if code < 0x800:
        out[end] = 0xC0 | code >> 6
        out[end + 1] = 0x80 | code & 0x3F
        return end + 2
    if code < 0x10000:
        out[end] = 0xE0 | code >> 12
        out[end + 1] = 0x80 | code >> 6 & 0x3F
        out[end + 2] = 0x80 | code & 0x3F
        return end + 3
    out[end] = 0xF0 | code >> 18
    out[end + 1] = 0x80 | code >> 12 & 0x3F
    out[end + 2] = 0x80 | code >> 6 & 0x3F
    out[end + 3] = 0x80 | code & 0x3F
    return end + 4


@numba.njit(cache=True)
def _normalise(
    data: Bytes, offsets: Offsets, table: npt.NDArray[np.uint32], out: Bytes, out_offsets: Offsets
) -> None:  # pragma: no cover
    end = 0
    for document in range(len(offsets) - 1):
        stop = offsets[document + 1]
        line = end  # where the sentence begins; between words the last byte written is a space
        i = offsets[document]
        while i <= stop:
            if i < stop:
                code, length = _decode(data, i, stop)
                i += length
                if 0 <= code < _TABLE_END:
                    entry = int(table[code])
                elif code == -1:
                    entry = _SEPARATES << 24
                elif code >= _HAN_END:
                    entry = _LEFT_OUT << 24
                else:
                    entry = _ALONE << 24 | code
            else:
                i += 1
                entry = _ENDS_SENTENCE << 24
            action = entry >> 24
            if action == _IN_WORD:
                end = _encode(entry & _CHARACTER, out, end)
            elif action != _LEFT_OUT:
                if end > line and out[end - 1] != SPACE:
                    out[end] = SPACE
                    end += 1
                if action == _ALONE:
                    character = entry & _CHARACTER
                    if character == ELLIPSIS:
                        for _ in range(3):
                            out[end] = 46
                            out[end + 1] = SPACE
                            end += 2
                    else:
                        end = _encode(character, out, end)
                        out[end] = SPACE
                        end += 1
                elif action == _ENDS_SENTENCE and end > line:
                    out[end - 1] = NEWLINE
                    line = end
        out_offsets[document + 1] = end
