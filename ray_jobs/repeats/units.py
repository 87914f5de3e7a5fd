"""Lines and paragraphs, and what they hash to once normalised.

A line stands between newlines, a paragraph between blank lines. Case, digits, accents and punctuation do not count
(`normalise.py`), so "Page 12 of 90" and "page 13 of 95" are one line. White space at the ends is left out and counts
once within.

The hash has 64 bits and decides alone. Of 10^10 different units 3 pairs agree by chance, and such a pair costs text
only where its count passes the rule's threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.files.columns import text_buffers
from ray_jobs.repeats.normalise import normalise
from ray_jobs.repeats.words import Bytes, Hashes, Offsets, is_space, mix

# A 64-bit constant of xxHash64 (Collet).
_STEP = np.uint64(0x9E3779B185EBCA87)


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


def find_units(column: pa.Array | pa.ChunkedArray, kinds: Sequence[str], min_characters: int) -> dict[str, Units]:
    """The units of a text column that have at least `min_characters` characters once normalised, by their kind:
    "lines" or "paragraphs"."""
    if not kinds:
        return {}
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    data, offsets = text_buffers(column)
    normalised, normal_offsets = normalise(data, offsets)
    found = {}
    for kind in kinds:
        most = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == 10)) + len(offsets) - 1
        hashes = np.empty(most, dtype=np.uint64)
        places = np.empty((3, most), dtype=np.int64)
        number = _units(data, offsets, normalised, normal_offsets, kind == "paragraphs", min_characters, hashes, places)
        found[kind] = Units(hashes[:number], places[0, :number], places[1, :number], places[2, :number])
    return found


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
