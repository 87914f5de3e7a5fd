"""Words of documents: where each stands and what it hashes to. Compiled loops over the bytes of an Arrow column.

A word is what stands between ASCII white space, byte for byte: case and punctuation count. In scripts written without
spaces (`ray_jobs.files.scripts`) every character is a word. Where words begin depends on their own bytes only, so any
run of a document's words, taken out, splits into the same words again.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.files.scripts import unspaced_bits, unspaced_length

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]

# Multipliers: the 64-bit prime of FNV (Fowler, Noll, Vo) per byte, those of MurmurHash3's fmix64 (Appleby) at the end.
_FNV = np.uint64(0x00000100000001B3)
_FNV_START = np.uint64(0xCBF29CE484222325)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)


@dataclass(frozen=True)
class Words:
    """The w words of n documents."""

    data: Bytes
    starts: Offsets
    """int64 [w]: the first byte of each in `data`."""
    ends: Offsets
    """int64 [w]: past its last byte."""
    offsets: Offsets
    """int64 [n + 1]: the first word of each document."""
    hashes: Hashes
    """uint64 [w]."""

    def __len__(self) -> int:
        return len(self.starts)

    def document_of(self, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which document holds each of these words."""
        return np.searchsorted(self.offsets, words, side="right") - 1

    def text(self, first: int, end: int) -> bytes:
        """From the first byte of word `first` to the last of word `end - 1`."""
        return self.data[self.starts[first] : self.ends[end - 1]].tobytes()


def split(data: Bytes, documents: Offsets) -> Words:
    """The words of documents given by their byte offsets (int64 [n + 1])."""
    # Words of one byte are kept apart by a space or by a word of three bytes. Memory that is not written costs nothing.
    most = int(documents[-1] - documents[0]) // 2 + len(documents)
    offsets = np.zeros(len(documents), dtype=np.int64)
    starts, ends = (np.empty(most, dtype=np.int64) for _ in range(2))
    hashes = np.empty(most, dtype=np.uint64)
    _split(data, documents, unspaced_bits(), offsets, starts, ends, hashes)
    return Words(data, starts[: offsets[-1]], ends[: offsets[-1]], offsets, hashes[: offsets[-1]])


def split_one(text: bytes) -> Words:
    return split(np.frombuffer(text, dtype=np.uint8), np.array([0, len(text)], dtype=np.int64))


@numba.njit(cache=True, inline="always")
def is_space(byte: np.uint8) -> bool:  # pragma: no cover
    """Space, \\t, \\n, \\v, \\f, \\r."""
    return bool(byte == 32 or 9 <= byte <= 13)


@numba.njit(cache=True, inline="always")
def mix(value: np.uint64) -> np.uint64:  # pragma: no cover
    value = (value ^ (value >> np.uint64(33))) * _MIX_1
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return value ^ (value >> np.uint64(33))


@numba.njit(cache=True, inline="always")
def equal(
    data: Bytes, start: int, end: int, other: Bytes, other_start: int, other_end: int
) -> bool:  # pragma: no cover
    """Whether two words, given by their first bytes and past their last, are the same."""
    if end - start != other_end - other_start:
        return False
    i = 0
    while start + i < end and data[start + i] == other[other_start + i]:
        i += 1
    return start + i == end


@numba.njit(cache=True, inline="always")
def _word_end(data: Bytes, start: int, end: int, unspaced: Bytes) -> int:  # pragma: no cover
    """Past the last byte of the word that begins at `start`."""
    length = unspaced_length(data, start, end, unspaced)
    if length:
        return start + length
    i = start + 1
    while i < end and not is_space(data[i]) and not unspaced_length(data, i, end, unspaced):
        i += 1
    return i


@numba.njit(cache=True)
def _split(
    data: Bytes,
    documents: Offsets,
    unspaced: Bytes,
    offsets: Offsets,
    starts: Offsets,
    ends: Offsets,
    hashes: Hashes,
) -> None:  # pragma: no cover
    word = 0
    for document in range(len(documents) - 1):
        i, end = documents[document], documents[document + 1]
        while i < end:
            if is_space(data[i]):
                i += 1
                continue
            starts[word] = i
            stop = _word_end(data, i, end, unspaced)
            value = _FNV_START
            while i < stop:
                value = (value ^ np.uint64(data[i])) * _FNV
                i += 1
            ends[word], hashes[word] = stop, mix(value)
            word += 1
        offsets[document + 1] = word
