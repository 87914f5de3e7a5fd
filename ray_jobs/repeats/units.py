"""Lines and paragraphs, and what they hash to once normalised.

A line stands between newlines, a paragraph between blank lines. Normalisation is that of CCNet (Wenzek et al. 2020,
section 3.1): lower case, every digit a 0, without punctuation and accents; so "Page 12 of 90" and "page 13 of 95" are
one line. White space at the ends is left out and counts once within.

The hash has 64 bits and decides alone. Of 10^10 different units 3 pairs agree by chance, and such a pair costs text
only where its count passes the rule's threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.repeats.words import Bytes, Hashes, Offsets, is_space, mix, text_buffers

# Marks and punctuation of every script, and control and format characters, without the white space among them.
_LEFT_OUT = r"[\p{M}\p{P}\p{Cf}\x00-\x08\x0e-\x1f\x7f]+"
_STEP = np.uint64(0x9E3779B185EBCA87)


def _normalised_ascii() -> Bytes:
    """What becomes of each byte of ASCII text; 255 marks one that is left out."""
    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += 32
    table[ord("0") : ord("9") + 1] = ord("0")
    table[np.frombuffer(b"!\"#%&'()*,-./:;?@[\\]_{}", dtype=np.uint8)] = 255  # Unicode's P; $+<=>^`|~ are symbols, S
    table[[*range(9), *range(14, 32), 127]] = 255
    return table


_ASCII = _normalised_ascii()


@dataclass(frozen=True)
class Units:
    """All lines, or all paragraphs, of n documents, in their order; u of them are long enough to be judged."""

    hashes: Hashes
    """uint64 [u]."""
    starts: Offsets
    """int64 [u]: the first byte."""
    ends: Offsets
    """int64 [u]: past the last byte."""
    documents: npt.NDArray[np.int64]
    """int64 [u]: the document that holds it."""


def normalise(column: pa.Array) -> pa.Array:
    """Normalised texts (large_string), each with as many newlines as before. Bytes that are no UTF-8 become U+FFFD."""
    binary = column.cast(pa.large_binary())
    try:
        text = binary.cast(pa.large_string())
    except pa.ArrowInvalid:
        text = pa.array([data.decode(errors="replace") for data in binary.to_pylist()], pa.large_string())
    is_ascii = pc.string_is_ascii(text).to_numpy(zero_copy_only=False)
    plain = _normalise_ascii(text.filter(pa.array(is_ascii)))
    if is_ascii.all():
        return plain
    other = text.filter(pa.array(~is_ascii))
    other = pc.replace_substring_regex(pc.utf8_normalize(pc.utf8_lower(other), form="NFD"), _LEFT_OUT, "")
    other = pc.replace_substring_regex(other, r"\p{Nd}", "0")
    rows = np.where(is_ascii, np.cumsum(is_ascii) - 1, len(plain) + np.cumsum(~is_ascii) - 1)
    return pa.concat_arrays([plain, other]).take(pa.array(rows))


def _normalise_ascii(text: pa.Array) -> pa.Array:
    data, offsets = text_buffers(text)
    out = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint8)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    _translate(data, offsets, _ASCII, out, out_offsets)
    buffers = [None, pa.py_buffer(out_offsets), pa.py_buffer(out[: out_offsets[-1]])]
    return pa.Array.from_buffers(pa.large_string(), len(text), buffers)


def find_units(column: pa.Array | pa.ChunkedArray, kinds: Sequence[str], min_characters: int) -> dict[str, Units]:
    """The units of a text column that have at least `min_characters` characters once normalised, by their kind:
    "lines" or "paragraphs"."""
    if not kinds:
        return {}
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    data, offsets = text_buffers(column)
    normalised, normal_offsets = text_buffers(normalise(column))
    found = {}
    for kind in kinds:
        most = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == 10)) + len(offsets) - 1
        hashes = np.empty(most, dtype=np.uint64)
        places = np.empty((3, most), dtype=np.int64)
        number = _units(data, offsets, normalised, normal_offsets, kind == "paragraphs", min_characters, hashes, places)
        found[kind] = Units(hashes[:number], places[0, :number], places[1, :number], places[2, :number])
    return found


@numba.njit(cache=True)
def _translate(
    data: Bytes, offsets: Offsets, table: Bytes, out: Bytes, out_offsets: Offsets
) -> None:  # pragma: no cover
    end = 0
    for document in range(len(offsets) - 1):
        for i in range(offsets[document], offsets[document + 1]):
            byte = table[data[i]]
            out[end] = byte
            end += byte != 255
        out_offsets[document + 1] = end


@numba.njit(cache=True)
def _units(
    data: Bytes,
    offsets: Offsets,
    normalised: Bytes,
    normal_offsets: Offsets,
    paragraphs: bool,
    min_characters: int,
    hashes: Hashes,
    places: npt.NDArray[np.int64],
) -> int:  # pragma: no cover
    num_units = 0
    for document in range(len(offsets) - 1):
        i, end = offsets[document], offsets[document + 1]
        j, normal_end = normal_offsets[document], normal_offsets[document + 1]
        value, characters, start, stop = np.uint64(paragraphs), 0, np.int64(-1), np.int64(-1)
        while i < end:
            line = i
            blank = True
            while i < end and data[i] != 10:
                blank = blank and is_space(data[i])
                i += 1
            if not blank:
                start = line if start < 0 else start
                stop = i
            separator = np.uint64(10 if characters else 0)  # before the next character, if there is one
            while j < normal_end and normalised[j] != 10:
                byte = normalised[j]
                j += 1
                if is_space(byte):
                    separator = np.uint64(32) if characters and separator == 0 else separator
                    continue
                if separator != 0:
                    value = (value ^ separator) * _STEP
                    characters += 1
                    separator = np.uint64(0)
                value = (value ^ np.uint64(byte)) * _STEP
                value ^= value >> np.uint64(32)
                characters += byte & 0xC0 != 0x80  # not the second or a later byte of a character
            i, j = i + 1, j + 1
            if paragraphs and not blank and i < end:
                continue
            if start >= 0 and characters >= min_characters:
                hashes[num_units] = mix(value)
                places[0, num_units], places[1, num_units], places[2, num_units] = start, stop, document
                num_units += 1
            value, characters, start, stop = np.uint64(paragraphs), 0, np.int64(-1), np.int64(-1)
    return num_units
