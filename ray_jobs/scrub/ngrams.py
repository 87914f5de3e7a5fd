"""The n-grams of the evaluation sets, and where documents hold one of them.

An example gives every run of `ngram_words` words in it; a shorter one, of `min_words` at least, gives all its words at
once. Both are n-grams here. They are found by the hash of their first words, which rolls over the document's words, in
a table with open addressing; what is found is compared byte by byte, so no collision ever counts.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.files.columns import text_buffers
from ray_jobs.scrub.words import Bytes, Hashes, Numbers, character_tables, mix, room_for, split

# The base of the rolling hash: an odd 64-bit constant of xxHash64 (Collet).
_BASE = np.uint64(0xC2B2AE3D27D4EB4F)

_FILTER_BITS = 16
"""An n-gram has so many in a bitmap, which fits a processor's cache and tells of most words that there is nothing."""


@dataclass(frozen=True)
class NgramIndex:
    """The distinct n-grams of all examples."""

    ngram_words: int
    min_words: int
    normal: Bytes
    """Normal form of all examples, end to end."""
    bounds: Numbers
    """[n, 2]: where in `normal` each n-gram begins and ends."""
    sizes: npt.NDArray[np.int32]
    """[n]: its words."""
    keys: Hashes
    """[n]: the hash of its first `ngram_words` words, or `min_words` where it has fewer."""
    slots: npt.NDArray[np.int32]
    """Open addressing over `keys`, a power of two long; -1 is free."""
    bitmap: Bytes
    owners: Numbers
    """[m]: examples, those of an n-gram side by side: of each set the first that has it."""
    owner_offsets: Numbers
    """[n + 1]"""
    num_short: int
    """Examples that were too short to be looked for."""

    def __len__(self) -> int:
        return len(self.sizes)

    def words(self, ngram: int) -> str:
        """As they are compared; bytes that are no UTF-8 as replacement characters."""
        start, end = self.bounds[ngram]
        return self.normal[start : end - 1].tobytes().decode(errors="replace")

    def examples(self, ngram: int) -> list[int]:
        found: list[int] = self.owners[self.owner_offsets[ngram] : self.owner_offsets[ngram + 1]].tolist()
        return found


@dataclass(frozen=True)
class Matches:
    """Where documents hold n-grams, in the order of documents and of places in them."""

    document: Numbers
    ngram: Numbers
    start: Numbers
    """In the document's bytes, where the n-gram's first word begins."""
    end: Numbers
    """Where the word after its last begins, or the document ends."""


def index_examples(
    texts: pa.Array | pa.ChunkedArray, sets: npt.NDArray[np.int32], ngram_words: int, min_words: int
) -> NgramIndex:
    """The index over examples of which each belongs to a set; those of one set stand side by side."""
    data, offsets = text_buffers(texts)
    num_bytes, num_words = room_for(int(offsets[-1] - offsets[0]))
    # Each example may need the last places of `room_for` of its own.
    num_bytes, num_words = num_bytes + 2 * len(offsets), num_words + 2 * len(offsets)
    normal, hashes = np.empty(num_bytes, np.uint8), np.empty(num_words, np.uint64)
    places, ends = np.empty((num_words, 2), np.int64), np.zeros(len(offsets), np.int64)
    num_words = _split_all(data, offsets, *character_tables(), normal, hashes, places, ends)
    num_candidates, num_short = _count(ends, ngram_words, min_words)
    bounds = np.empty((num_candidates, 2), np.int64)
    sizes, keys = np.empty(num_candidates, np.int32), np.empty(num_candidates, np.uint64)
    slots = np.full(_power_of_two(2 * num_candidates), -1, np.int32)
    owned = np.empty((num_candidates, 2), np.int64)
    num_ngrams, num_owned = _collect(
        normal, hashes[:num_words], places, ends, sets, ngram_words, min_words, bounds, sizes, keys, slots, owned
    )
    keys = keys[:num_ngrams].copy()
    bitmap = np.zeros(_power_of_two(_FILTER_BITS * num_ngrams) // 8, np.uint8)
    _fill_bitmap(keys, bitmap)
    owned = owned[:num_owned]
    order = np.argsort(owned[:, 0], kind="stable")
    owner_offsets = np.zeros(num_ngrams + 1, np.int64)
    np.cumsum(np.bincount(owned[:, 0], minlength=num_ngrams), out=owner_offsets[1:])
    return NgramIndex(
        ngram_words,
        min_words,
        normal[: places[num_words, 0]].copy(),
        bounds[:num_ngrams].copy(),
        sizes[:num_ngrams].copy(),
        keys,
        slots,
        bitmap,
        owned[order, 1].copy(),
        owner_offsets,
        num_short,
    )


def find_matches(column: pa.Array | pa.ChunkedArray, index: NgramIndex) -> Matches:
    """Every n-gram of the index in every document of the column, as often as it is there."""
    data, offsets = text_buffers(column)
    longest = int(np.diff(offsets).max(initial=0))
    num_bytes, num_words = room_for(longest)
    text, hashes = np.empty(num_bytes, np.uint8), np.empty(num_words, np.uint64)
    places = np.empty((num_words, 2), np.int64)
    min_words = index.min_words if (index.sizes < index.ngram_words).any() else 0
    out = np.empty((1024, 4), np.int64)
    while True:
        found = _find(
            data,
            offsets,
            *character_tables(),
            index.ngram_words,
            min_words,
            index.normal,
            index.bounds,
            index.sizes,
            index.keys,
            index.slots,
            index.bitmap,
            text,
            hashes,
            places,
            out,
        )
        if found <= len(out):
            break
        out = np.empty((found, 4), np.int64)
    out = out[:found]
    out = out[np.lexsort((out[:, 1], out[:, 2], out[:, 0]))]
    return Matches(*(column.copy() for column in out.T))


def _power_of_two(least: int) -> int:
    return 1 << max(6, (least - 1).bit_length())


@numba.njit(cache=True)
def _split_all(
    data: Bytes,
    offsets: Numbers,
    kinds: Bytes,
    becomes: npt.NDArray[np.uint16],
    unspaced: Bytes,
    normal: Bytes,
    hashes: Hashes,
    places: Numbers,
    ends: Numbers,
) -> int:  # pragma: no cover
    """The words of all examples, end to end; `ends[e + 1]` is where those of example e end."""
    num_words = 0
    num_bytes = 0
    for example in range(len(offsets) - 1):
        num_words_here = split(
            data,
            offsets[example],
            offsets[example + 1],
            kinds,
            becomes,
            unspaced,
            normal[num_bytes:],
            hashes[num_words:],
            places[num_words:],
        )
        for word in range(num_words, num_words + num_words_here + 1):
            places[word, 0] += num_bytes
        num_words += num_words_here
        num_bytes = places[num_words, 0]
        ends[example + 1] = num_words
    return num_words


@numba.njit(cache=True)
def _count(ends: Numbers, ngram_words: int, min_words: int) -> tuple[int, int]:  # pragma: no cover
    """n-grams, equal ones and all, and examples that are too short for one."""
    num_ngrams = 0
    num_short = 0
    for example in range(len(ends) - 1):
        num_words = ends[example + 1] - ends[example]
        if num_words >= ngram_words:
            num_ngrams += num_words - ngram_words + 1
        elif num_words >= min_words:
            num_ngrams += 1
        else:
            num_short += 1
    return num_ngrams, num_short


@numba.njit(cache=True, inline="always")
def _equal(a: Bytes, i: int, b: Bytes, k: int, length: int) -> bool:  # pragma: no cover
    for offset in range(length):  # noqa: SIM110 - compiled
        if a[i + offset] != b[k + offset]:
            return False
    return True


@numba.njit(cache=True)
def _hash(hashes: Hashes, first: int, num_words: int) -> np.uint64:  # pragma: no cover
    value = np.uint64(0)
    for word in range(first, first + num_words):
        value = value * _BASE + hashes[word]
    return mix(value + np.uint64(num_words))


@numba.njit(cache=True)
def _collect(
    normal: Bytes,
    hashes: Hashes,
    places: Numbers,
    ends: Numbers,
    sets: npt.NDArray[np.int32],
    ngram_words: int,
    min_words: int,
    bounds: Numbers,
    sizes: npt.NDArray[np.int32],
    keys: Hashes,
    slots: npt.NDArray[np.int32],
    owned: Numbers,
) -> tuple[int, int]:  # pragma: no cover
    """Enters each distinct n-gram into the table; `owned` gets (n-gram, example) for the first example of each set."""
    mask = np.uint64(len(slots) - 1)
    last_set = np.full(len(sizes), -1, np.int32)
    num_ngrams = 0
    num_owned = 0
    for example in range(len(ends) - 1):
        num_words = ends[example + 1] - ends[example]
        if num_words < min_words:
            continue
        size = min(ngram_words, num_words)
        for first in range(ends[example], ends[example + 1] - size + 1):
            start, end = places[first, 0], places[first + size, 0]
            key = _hash(hashes, first, ngram_words if size == ngram_words else min_words)
            slot = key & mask
            ngram = slots[slot]
            while ngram >= 0:
                if (
                    keys[ngram] == key
                    and bounds[ngram, 1] - bounds[ngram, 0] == end - start
                    and _equal(normal, bounds[ngram, 0], normal, start, end - start)
                ):
                    break
                slot = (slot + np.uint64(1)) & mask
                ngram = slots[slot]
            if ngram < 0:
                ngram = num_ngrams
                slots[slot] = ngram
                bounds[ngram, 0], bounds[ngram, 1] = start, end
                sizes[ngram] = size
                keys[ngram] = key
                num_ngrams += 1
            if last_set[ngram] != sets[example]:
                last_set[ngram] = sets[example]
                owned[num_owned, 0], owned[num_owned, 1] = ngram, example
                num_owned += 1
    return num_ngrams, num_owned


@numba.njit(cache=True)
def _fill_bitmap(keys: Hashes, bitmap: Bytes) -> None:  # pragma: no cover
    mask = np.uint64(8 * len(bitmap) - 1)
    for key in keys:
        bit = (key >> np.uint64(32)) & mask
        bitmap[bit >> np.uint64(3)] |= np.uint8(1) << np.uint8(bit & np.uint64(7))


@numba.njit(cache=True)
def _find(
    data: Bytes,
    offsets: Numbers,
    kinds: Bytes,
    becomes: npt.NDArray[np.uint16],
    unspaced: Bytes,
    ngram_words: int,
    min_words: int,
    normal: Bytes,
    bounds: Numbers,
    sizes: npt.NDArray[np.int32],
    keys: Hashes,
    slots: npt.NDArray[np.int32],
    bitmap: Bytes,
    text: Bytes,
    hashes: Hashes,
    places: Numbers,
    out: Numbers,
) -> int:  # pragma: no cover
    """Writes (document, n-gram, start, end) of each match, as far as there is room; returns how many there are."""
    found = 0
    for document in range(len(offsets) - 1):
        num_words = split(
            data, offsets[document], offsets[document + 1], kinds, becomes, unspaced, text, hashes, places
        )
        for width in (ngram_words, min_words):
            if width == 0 or num_words < width:
                continue
            # The word that leaves the window is taken out of the hash with the power that it has grown to.
            power = np.uint64(1)
            for _ in range(width):
                power *= _BASE
            value = np.uint64(0)
            for last in range(num_words):
                value = value * _BASE + hashes[last]
                if last >= width:
                    value -= power * hashes[last - width]
                elif last < width - 1:
                    continue
                key = mix(value + np.uint64(width))
                bit = (key >> np.uint64(32)) & np.uint64(8 * len(bitmap) - 1)
                if not bitmap[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7)) & 1:
                    continue
                first = last - width + 1
                slot = key & np.uint64(len(slots) - 1)
                ngram = slots[slot]
                while ngram >= 0:
                    length = bounds[ngram, 1] - bounds[ngram, 0]
                    if (
                        keys[ngram] == key
                        and first + sizes[ngram] <= num_words
                        and places[first + sizes[ngram], 0] - places[first, 0] == length
                        and _equal(normal, bounds[ngram, 0], text, places[first, 0], length)
                    ):
                        if found < len(out):
                            out[found, 0], out[found, 1] = document, ngram
                            out[found, 2] = places[first, 1] - offsets[document]
                            out[found, 3] = places[first + sizes[ngram], 1] - offsets[document]
                        found += 1
                    slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
                    ngram = slots[slot]
    return found
