"""Word sequences that stand at two places: windows of a fixed number of words, hashed, sorted and compared.

**The rule.** A window is n consecutive words of one document. Places are ordered by document, then by word. A window is
a *repeat* if the first place with the same words lies in an earlier document, or in its own document so that the two do
not overlap. A word is cut out if, and only if, a repeat covers it. So every word cut out has an equal one at an earlier
place, and following first places leads to one that is kept; text with a period shorter than a window (rulers, tables of
zeros) keeps its beginning. How documents are spread over files does not enter: that is the exact-substring rule of Lee
et al. (2022), for all substrings of n words or more, with the first occurrence kept.

**The method.** A window's 64-bit hash is a polynomial in its words' hashes, updated from word to word. Equal hashes are
found by one sort of integers that hold the hash's upper bits and the place; equality is then decided by the words, so a
collision keeps text and never cuts. Hashes of all files meet by ranges, so this finds repeats across files; within one
it is the default. `suffix_array.py` finds the same first places within a file: on 55 MB of manuals in 30 languages it
takes 2.1 s of processor time and 5.5 bytes a byte of text, this 0.8 s and 5.8.
"""

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.repeats.words import Bytes, Hashes, Offsets, Words, equal, mix

# Odd, so that it has an inverse modulo 2^64: a 64-bit constant of xxHash64 (Collet).
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)


def window_hashes(words: Words, num_words: int) -> Hashes:
    """uint64 [w]: the hash of the window that begins at each word; 0 where none does, too near its document's end."""
    out = np.zeros(len(words), dtype=np.uint64)
    _window_hashes(words.hashes, words.offsets, num_words, out)
    return out


def first_places(words: Words, hashes: Hashes, num_words: int) -> npt.NDArray[np.int64]:
    """int64 [w]: where among these words the window of each word stands first (itself, where there is no earlier
    place); -1 where no window begins."""
    first = np.full(len(words), -1, dtype=np.int64)
    places = np.flatnonzero(hashes)
    if not len(places):
        return first
    first[places] = places
    bits = max(1, (len(words) - 1).bit_length())
    packed = hashes[places]
    packed &= ~np.uint64((1 << bits) - 1)
    packed |= places.view(np.uint64)
    del places  # a word's 8 bytes are more than those of its text
    packed.sort()
    _first_of_equal(packed, bits, hashes, first)
    _compare(words.data, words.starts, words.ends, words.offsets, num_words, first)
    return first


def agreement(words: Words, start: int, other: Words) -> int:
    """How many words from `start` on equal the other's words from its first on, one by one."""
    return int(
        _agreement(words.data, words.starts, words.ends, start, other.data, other.starts, other.ends, len(other))
    )


def covered(repeats: npt.NDArray[np.bool_], num_words: int) -> npt.NDArray[np.bool_]:
    """Which words the marked windows cover, given for each word whether a marked one begins there."""
    edges = np.zeros(len(repeats) + num_words, dtype=np.int32)
    edges[: len(repeats)] += repeats
    edges[num_words:] -= repeats
    return np.cumsum(edges, out=edges)[: len(repeats)] > 0


@numba.njit(cache=True)
def _window_hashes(word_hashes: Hashes, offsets: Offsets, num_words: int, out: Hashes) -> None:  # pragma: no cover
    highest = np.uint64(1)
    for _ in range(num_words - 1):
        highest *= _STEP
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        if end - start < num_words:
            continue
        value = np.uint64(0)
        for i in range(start, start + num_words):
            value = value * _STEP + word_hashes[i]
        for i in range(start, end - num_words + 1):
            out[i] = max(mix(value), np.uint64(1))
            if i + num_words < end:
                value = (value - word_hashes[i] * highest) * _STEP + word_hashes[i + num_words]


@numba.njit(cache=True)
def _first_of_equal(packed: Hashes, bits: int, hashes: Hashes, first: Offsets) -> None:  # pragma: no cover
    mask = np.uint64((1 << bits) - 1)
    start = 0
    for i in range(1, len(packed)):
        if (packed[i] ^ packed[start]) >> np.uint64(bits) != 0:
            start = i
            continue
        place = np.int64(packed[i] & mask)
        # The whole hashes decide. Places ascend within equal upper bits, so the first that is equal is the first place.
        for j in range(start, i):
            earlier = np.int64(packed[j] & mask)
            if first[earlier] == earlier and hashes[earlier] == hashes[place]:
                first[place] = earlier
                break


@numba.njit(cache=True)
def _compare(
    data: Bytes, starts: Offsets, ends: Offsets, offsets: Offsets, num_words: int, first: Offsets
) -> None:  # pragma: no cover
    """Takes back what hashes alone claimed: a window whose words differ from those at its first place stands first."""
    for document in range(len(offsets) - 1):
        compared, shift = offsets[document], np.int64(-1)
        for i in range(offsets[document], offsets[document + 1] - num_words + 1):
            if first[i] == i:
                continue
            if i - first[i] != shift:
                compared, shift = i, i - first[i]
            # Words before `compared` are known to equal those `shift` words before them.
            for word in range(max(i, compared), i + num_words):
                earlier = word - shift
                if not equal(data, starts[word], ends[word], data, starts[earlier], ends[earlier]):
                    first[i], shift = i, np.int64(-1)
                    break
                compared = word + 1


@numba.njit(cache=True)
def _agreement(
    data: Bytes,
    starts: Offsets,
    ends: Offsets,
    start: int,
    other: Bytes,
    other_starts: Offsets,
    other_ends: Offsets,
    num_words: int,
) -> int:  # pragma: no cover
    for i in range(min(num_words, len(starts) - start)):
        if not equal(data, starts[start + i], ends[start + i], other, other_starts[i], other_ends[i]):
            return i
    return min(num_words, len(starts) - start)
