"""From text to exact hashes, MinHash signatures and band keys: compiled loops over the bytes of Arrow columns.

**Normalisation.** Text is UTF-8 and stays bytes. ASCII letters are lower-cased, every run of ASCII white space (space,
\\t, \\n, \\v, \\f, \\r) becomes one space, none stands at the ends. Nothing else changes: punctuation and accents
count, since documents that differ in them are not duplicates; what differs in case beyond ASCII is found by the
similarity, not the exact hash.

**Words** are what stands between spaces. In scripts written without spaces (`ray_jobs.files.scripts`) every character
is a word, otherwise a Chinese page would be a few giant words.

**Shingles** are n-grams of words, hashed to 32 bits. A document of fewer than n words is one shingle of all its words;
one without words has none, and its signature is all ones.

**Signatures** hold min over the shingles x of (a_i·x + b_i) mod 2^32 with odd a_i, a bijection of the 32-bit numbers.
That family is not min-wise independent; a test holds its estimates to the spread of independent ones. Source: Broder,
"On the resemblance and containment of documents" (1997).
"""

import hashlib
import itertools
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ray_jobs.files.scripts import unspaced_bits, unspaced_length

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]

# Multipliers of the word and shingle hashes: odd 64-bit constants of xxHash64 (Collet) and of MurmurHash3's fmix64
# (Appleby).
_WORD = np.uint64(0x9E3779B185EBCA87)
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)


def _normalised_bytes() -> Bytes:
    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += 32
    table[np.frombuffer(b" \t\n\v\f\r", dtype=np.uint8)] = 32
    return table


_NORMALISED = _normalised_bytes()


def normalise(data: Bytes, offsets: Offsets) -> tuple[Bytes, Offsets]:
    """The normalised documents, end to end, and their offsets."""
    first, last = int(offsets[0]), int(offsets[-1])
    out = np.empty(last - first, dtype=np.uint8)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    _normalise(data, offsets, _NORMALISED, out, out_offsets)
    return out[: out_offsets[-1]], out_offsets


def exact_hashes(normalised: Bytes, offsets: Offsets) -> npt.NDArray[np.uint64]:
    """xxh3-128 of each normalised document: uint64 [n, 2]."""
    view, ends = normalised.data, offsets.tolist()
    digest = xxhash.xxh3_128_digest
    digests = [digest(view[start:end]) for start, end in itertools.pairwise(ends)]
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)


def permutations(num_permutations: int, seed: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Multipliers (odd) and increments of the affine permutations, a function of the seed on every machine."""
    stream = hashlib.shake_256(f"headrace-minhash/{seed}".encode()).digest(8 * num_permutations)
    numbers = np.frombuffer(stream, dtype="<u4").astype(np.uint32)
    return numbers[:num_permutations] | np.uint32(1), numbers[num_permutations:].copy()


def signatures(
    normalised: Bytes, offsets: Offsets, shingle_words: int, num_permutations: int, seed: int
) -> npt.NDArray[np.uint32]:
    """MinHash signatures of normalised documents: uint32 [n, num_permutations]."""
    multipliers, increments = permutations(num_permutations, seed)
    out = np.empty((len(offsets) - 1, num_permutations), dtype=np.uint32)
    _signatures(normalised, offsets, shingle_words, unspaced_bits(), multipliers, increments, out)
    return out


def has_shingles(signed: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Whether each signature is of a document with a word: bool [n]."""
    return (signed != np.uint32(0xFFFFFFFF)).any(axis=1)


def shingle_sets(normalised: Bytes, offsets: Offsets, shingle_words: int) -> tuple[npt.NDArray[np.uint32], Offsets]:
    """Each document's set of shingle hashes, sorted: all sets end to end, and their offsets."""
    out = np.empty(_most_words(normalised.size) + len(offsets), dtype=np.uint32)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    _shingle_sets(normalised, offsets, shingle_words, unspaced_bits(), out, out_offsets)
    return out[: out_offsets[-1]].copy(), out_offsets


def band_keys(signed: npt.NDArray[np.uint32], num_bands: int, rows: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each band of each signature: uint64 [num_bands, n], one contiguous row a band."""
    keys = np.empty((num_bands, len(signed)), dtype=np.uint64)
    _band_keys(np.ascontiguousarray(signed), rows, keys)
    return keys


def binary_rows(values: npt.NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """Rows of unsigned integers [n, w] as n binary values, little-endian."""
    data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    width = data.dtype.itemsize * data.shape[1]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data)])


def rows_of(column: pa.ChunkedArray, dtype: type[np.unsignedinteger[Any]]) -> npt.NDArray[Any]:
    """The inverse of `binary_rows`: unsigned integers [n, w]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = array.type.byte_width // np.dtype(dtype).itemsize
    values = np.frombuffer(array.buffers()[1], dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
    return values.reshape(-1, width)[array.offset : array.offset + len(array)]


def _most_words(num_bytes: int) -> int:
    # Words of one byte are kept apart by a space or by a word of three bytes.
    return num_bytes // 2 + 1


@numba.njit(cache=True)
def _normalise(
    data: Bytes, offsets: Offsets, table: Bytes, out: Bytes, out_offsets: Offsets
) -> None:  # pragma: no cover
    end = 0
    for document in range(len(offsets) - 1):
        begin = end
        # Every byte is written; a space after a space is overwritten by the next. Branches would cost nearly twice the
        # time.
        after_space = True
        for i in range(offsets[document], offsets[document + 1]):
            byte = table[data[i]]
            out[end] = byte
            is_space = byte == 32
            end += not (is_space and after_space)
            after_space = is_space
        if after_space and end > begin:
            end -= 1
        out_offsets[document + 1] = end


@numba.njit(cache=True, inline="always")
def _mix(value: np.uint64) -> np.uint64:  # pragma: no cover
    value = (value ^ (value >> np.uint64(33))) * _MIX_1
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return value ^ (value >> np.uint64(33))


@numba.njit(cache=True)
def hash_words(
    data: Bytes, start: int, end: int, unspaced: Bytes, out: npt.NDArray[np.uint64]
) -> int:  # pragma: no cover
    """Writes the hashes of the words of one normalised document, bytes `start` to `end`, and returns their number.

    `unspaced` is `scripts.unspaced_bits()`; `out` has room for half as many as there are bytes, and two more.
    """
    num_words = 0
    value = np.uint64(0)
    i = start
    while i < end:
        byte = data[i]
        length = unspaced_length(data, i, end, unspaced) if byte >= 0xE0 else 0
        if length:
            num_words += value != 0
            character = np.uint64(0)
            for k in range(length):
                character = (character << np.uint64(8)) | np.uint64(data[i + k])
            out[num_words] = character * _WORD
            num_words += 1
            value = np.uint64(0)
            i += length
            i += i < end and data[i] == 32
            continue
        # The word so far is written at every byte, and a space begins the next by multiplying with 0: no branch that
        # the processor would guess wrong once a word. One more than the byte, so that a NUL is not nothing.
        space = byte == 32
        value = value * (np.uint64(0) if space else _WORD) + (np.uint64(0) if space else np.uint64(byte) + np.uint64(1))
        num_words += space
        out[num_words] = value
        i += 1
    num_words += value != 0
    for word in range(num_words):
        out[word] = _mix(out[word])
    return num_words


@numba.njit(cache=True)
def hash_shingles(
    words: npt.NDArray[np.uint64], num_words: int, width: int, out: npt.NDArray[np.uint32]
) -> int:  # pragma: no cover
    """Writes the 32-bit hashes of the shingles of a document's words, duplicates and all, and returns their number.

    `out` has room for as many as there are words.
    """
    if num_words == 0:
        return 0
    used = min(width, num_words)
    num_shingles = num_words - used + 1
    for first in range(num_shingles):
        # A sum of words times powers of an odd number depends on their order, and has no long chain of dependent steps.
        total = np.uint64(used)
        factor = np.uint64(1)
        for k in range(used):
            total += words[first + k] * factor
            factor *= _STEP
        out[first] = np.uint32(_mix(total) >> np.uint64(32))
    return num_shingles


@numba.njit(cache=True)
def longest_document(offsets: Offsets) -> int:  # pragma: no cover
    """Bytes of the longest document; 0 where there is none."""
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@numba.njit(cache=True)
def _signatures(
    data: Bytes,
    offsets: Offsets,
    width: int,
    unspaced: Bytes,
    multipliers: npt.NDArray[np.uint32],
    increments: npt.NDArray[np.uint32],
    out: npt.NDArray[np.uint32],
) -> None:  # pragma: no cover
    room = longest_document(offsets) // 2 + 2
    words = np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint32)
    for document in range(len(offsets) - 1):
        num_words = hash_words(data, offsets[document], offsets[document + 1], unspaced, words)
        num_shingles = hash_shingles(words, num_words, width, shingles)
        for p in range(len(multipliers)):
            multiplier, increment = multipliers[p], increments[p]
            least = np.uint32(0xFFFFFFFF)
            for s in range(num_shingles):
                least = min(least, np.uint32(multiplier * shingles[s] + increment))
            out[document, p] = least


@numba.njit(cache=True)
def _shingle_sets(
    data: Bytes, offsets: Offsets, width: int, unspaced: Bytes, out: npt.NDArray[np.uint32], out_offsets: Offsets
) -> None:  # pragma: no cover
    words = np.empty(longest_document(offsets) // 2 + 2, dtype=np.uint64)
    shingles = np.empty(len(words), dtype=np.uint32)
    end = 0
    for document in range(len(offsets) - 1):
        num_words = hash_words(data, offsets[document], offsets[document + 1], unspaced, words)
        found = np.sort(shingles[: hash_shingles(words, num_words, width, shingles)])
        for s in range(len(found)):
            if s == 0 or found[s] != found[s - 1]:
                out[end] = found[s]
                end += 1
        out_offsets[document + 1] = end


@numba.njit(cache=True)
def _band_keys(signed: npt.NDArray[np.uint32], rows: int, keys: npt.NDArray[np.uint64]) -> None:  # pragma: no cover
    for document in range(len(signed)):
        for band in range(len(keys)):
            key = np.uint64(band + 1)
            for row in range(rows):
                # One multiplication a row: the last one's mixing does the rest.
                key = (key ^ np.uint64(signed[document, band * rows + row])) * _STEP
                key ^= key >> np.uint64(32)
            keys[band, document] = _mix(key)
