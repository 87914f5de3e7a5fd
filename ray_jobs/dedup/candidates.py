"""Which documents may be duplicates of one another: those that share a key, and what chains of such connect.

A key is a 64-bit hash of what two documents have in common: a band of their signatures, the whole text, the URL. In
each group of equal keys the first document of this crawl is joined with every other, and with the first documents of
earlier crawls that stand in the group. These edges delete nothing by themselves (a chain of near-duplicates joins
documents that share nothing); they say which documents must be compared, and let components be compared apart.

Equal keys are found by sorting integers that hold a key's upper bits and the entry's place in the lower ones: one sort
of 8 bytes an entry, no table of lists. Of n entries 64 - ⌈log2 n⌉ bits of the key are left; keys that agree in those by
chance are told apart when the group is read.
"""

from collections.abc import Iterable
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.uint64]


def sort_order(keys: Numbers, shift: int = 0) -> npt.NDArray[np.int64]:
    """An order of n keys by their 64 - ⌈log2 n⌉ uppermost bits behind the first `shift`, which all have in common, then
    by place: int64 [n]."""
    packed, bits = _pack_and_sort(keys, shift)
    packed &= np.uint64((1 << bits) - 1)
    return packed.view(np.int64)


def edges(keys: Numbers, documents: Numbers, first_own: int, shift: int, max_earlier: int) -> tuple[Numbers, Numbers]:
    """Pairs (first document of this crawl in its group, another document), each once: two uint64 [m].

    Args:
        keys, documents: entries [n]; within equal keys the documents ascend.
        first_own: documents below this number belong to earlier crawls, which are joined with none of their own kind.
        shift: upper bits that all keys have in common, as they come from one range.
        max_earlier: so many of the first documents of earlier crawls in a group are joined.
    """
    packed, bits = _pack_and_sort(keys, shift)
    num_edges = _count_grouped(packed, bits)
    hubs, others = np.empty(num_edges, np.uint64), np.empty(num_edges, np.uint64)
    size = _join_groups(packed, bits, keys, documents, np.uint64(first_own), max_earlier, hubs, others)
    return unique_pairs(hubs[:size], others[:size])


def unique_pairs(first: Numbers, second: Numbers) -> tuple[Numbers, Numbers]:
    """The different ones among the pairs, in an order that depends on the pairs and theirs alone."""
    if not len(first):
        return first, second
    packed, bits = _pack_and_sort(hash_pairs(first, second))
    places = packed & np.uint64((1 << bits) - 1)
    fresh = _first_of_pair(packed, bits, first, second)
    places = np.sort(places[fresh])
    return first[places], second[places]


def components(num_documents: int, edges: Iterable[tuple[Numbers, Numbers]]) -> npt.NDArray[np.int64]:
    """The component of each document that has an edge, named by its first member; -1 of all others: int64 [n]."""
    parents = np.full(num_documents, -1, dtype=np.int64)
    for first, second in edges:
        _join(first, second, parents)
    _flatten(parents)
    return parents


def _pack_and_sort(keys: Numbers, shift: int = 0) -> tuple[Numbers, int]:
    """Sorted (upper bits of keys[i], behind the first `shift`, ‖ i), and how many bits i takes."""
    bits = max(1, (len(keys) - 1).bit_length()) if len(keys) else 1
    packed = np.empty(len(keys), dtype=np.uint64)
    # Two passes, which leave four entries a bucket: one pass over so many buckets would miss the cache at every step.
    first_bits = max(1, (bits - 2) // 2)
    _sort_by_bucket(keys, np.uint64(shift), np.uint64(bits), first_bits, max(1, bits - 2 - first_bits), packed)
    return packed, bits


# Ciura's gaps ("Best Increments for the Average Case of Shellsort", 2001), continued by the factor 2.25.
_GAPS = (102_003, 45_335, 20_149, 8_955, 3_980, 1_769, 701, 301, 132, 57, 23, 10, 4)


@numba.njit(cache=True)
def _sort_range(values: npt.NDArray[np.uint64], start: int, end: int) -> None:  # pragma: no cover
    """Sorts values[start:end] in place: by insertion where they are few, as in most buckets, else by Shell's method.

    numba's own sort takes a second and a half to compile.
    """
    if end - start > 32:
        for gap in _GAPS:
            _insert_by(gap, values, start, end)
    _insert_by(1, values, start, end)


@numba.njit(cache=True, inline="always")
def _insert_by(gap: int, values: npt.NDArray[np.uint64], start: int, end: int) -> None:  # pragma: no cover
    for i in range(start + gap, end):
        value = values[i]
        j = i - gap
        while j >= start and values[j] > value:
            values[j + gap] = values[j]
            j -= gap
        values[j + gap] = value


@numba.njit(cache=True)
def _sort_by_bucket(
    keys: Numbers, shift: np.uint64, bits: np.uint64, first_bits: int, second_bits: int, packed: Numbers
) -> None:  # pragma: no cover
    """Packs keys in order of their uppermost bits, sorts each such bucket by the next bits, then within buckets of
    these: a third of the time of np.sort.

    A bucket is sorted in a small scratch array that stays in the cache. One as large as the entries would cost as much
    as sorting does: fresh memory is what a hundred megabytes take longest to get.
    """
    outer = np.zeros((1 << first_bits) + 1, dtype=np.int64)
    drop = np.uint64(64 - first_bits)
    for i in range(len(keys)):
        outer[np.int64((keys[i] << shift) >> drop) + 1] += 1
    largest = outer.max()
    for bucket in range(1, len(outer)):
        outer[bucket] += outer[bucket - 1]
    for i in range(len(keys)):
        key = keys[i] << shift
        top = np.int64(key >> drop)
        packed[outer[top]] = (key >> bits << bits) | np.uint64(i)
        outer[top] += 1
    # Now each bucket's number leads to its end.
    scratch = np.empty(largest, dtype=np.uint64)
    inner = np.empty(1 << second_bits, dtype=np.int64)
    start = 0
    for bucket in range(len(outer) - 1):
        stop = int(outer[bucket])
        _scatter(packed[start:stop], scratch, 64 - first_bits - second_bits, inner)
        begin = 0
        for inner_bucket in range(len(inner)):
            _sort_range(scratch, begin, int(inner[inner_bucket]))
            begin = int(inner[inner_bucket])
        for i in range(stop - start):
            packed[start + i] = scratch[i]
        start = stop


@numba.njit(cache=True)
def _scatter(
    source: npt.NDArray[np.uint64], target: npt.NDArray[np.uint64], shift: int, ends: npt.NDArray[np.int64]
) -> None:  # pragma: no cover
    """Copies `source` to the beginning of `target` in the order of the bits above `shift` that number the buckets.

    On return `ends` holds the end of each bucket; their number is a power of two.
    """
    mask = np.uint64(len(ends) - 1)
    ends[:] = 0
    for i in range(len(source)):
        ends[np.int64((source[i] >> np.uint64(shift)) & mask)] += 1
    begin = 0
    for bucket in range(len(ends)):
        size = int(ends[bucket])
        ends[bucket] = begin
        begin += size
    for i in range(len(source)):
        place = np.int64((source[i] >> np.uint64(shift)) & mask)
        target[ends[place]] = source[i]
        ends[place] += 1


@numba.njit(cache=True, inline="always")
def _group_end(packed: Numbers, bits: int, start: int) -> int:  # pragma: no cover
    end = start + 1
    while end < len(packed) and (packed[end] ^ packed[start]) >> np.uint64(bits) == 0:
        end += 1
    return end


@numba.njit(cache=True)
def _count_grouped(packed: Numbers, bits: int) -> int:  # pragma: no cover
    """Entries in groups of two and more, by the bits that are left of their keys."""
    total = 0
    start = 0
    while start < len(packed):
        end = _group_end(packed, bits, start)
        total += end - start if end - start > 1 else 0
        start = end
    return total


@numba.njit(cache=True)
def _join_groups(
    packed: Numbers,
    bits: int,
    keys: Numbers,
    documents: Numbers,
    first_own: np.uint64,
    max_earlier: int,
    hubs: Numbers,
    others: Numbers,
) -> int:  # pragma: no cover
    mask = np.uint64((1 << bits) - 1)
    places = np.empty(16, dtype=np.int64)
    size = 0
    start = 0
    while start < len(packed):
        end = _group_end(packed, bits, start)
        left = end - start
        if left > len(places):
            places = np.empty(2 * left, dtype=np.int64)
        for i in range(left):
            places[i] = np.int64(packed[start + i] & mask)
        # One key a round, and nearly every group has only one; what has another stays, in its order.
        while left > 1:
            key = keys[places[0]]
            hub = np.uint64(0)
            num_own, num_earlier, rest = 0, 0, 0
            first_edge = size
            for i in range(left):
                place = places[i]
                document = documents[place]
                if keys[place] != key:
                    places[rest] = place
                    rest += 1
                elif document < first_own:
                    if num_earlier < max_earlier:
                        others[size] = document
                        size += 1
                        num_earlier += 1
                elif num_own == 0:
                    hub = document
                    num_own = 1
                else:
                    others[size] = document
                    size += 1
            if num_own == 0:
                size = first_edge
            hubs[first_edge:size] = hub
            left = rest
        start = end
    return size


@numba.njit(cache=True)
def hash_pairs(first: Numbers, second: Numbers) -> Numbers:  # pragma: no cover
    """A 64-bit hash of each pair: uint64 [n]."""
    hashes = np.empty(len(first), dtype=np.uint64)
    for i in range(len(first)):
        # Odd constants of xxHash64 (Collet).
        value = (first[i] * np.uint64(0x9E3779B185EBCA87)) ^ (second[i] * np.uint64(0xC2B2AE3D27D4EB4F))
        value = (value ^ (value >> np.uint64(29))) * np.uint64(0x165667B19E3779F9)
        hashes[i] = value ^ (value >> np.uint64(32))
    return hashes


@numba.njit(cache=True)
def _first_of_pair(
    packed: Numbers, bits: int, first: Numbers, second: Numbers
) -> npt.NDArray[np.bool_]:  # pragma: no cover
    """Of entries in the order of their pairs' hashes: whether no earlier one holds the same pair."""
    mask = np.uint64((1 << bits) - 1)
    fresh = np.ones(len(packed), dtype=np.bool_)
    start = 0
    for i in range(1, len(packed)):
        if (packed[i] ^ packed[start]) >> np.uint64(bits) != 0:
            start = i
            continue
        place = np.int64(packed[i] & mask)
        for j in range(start, i):
            earlier = np.int64(packed[j] & mask)
            if fresh[j] and first[earlier] == first[place] and second[earlier] == second[place]:
                fresh[i] = False
                break
    return fresh


@numba.njit(cache=True)
def _root(parents: npt.NDArray[np.int64], i: np.int64) -> np.int64:  # pragma: no cover
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@numba.njit(cache=True)
def _join(first: Numbers, second: Numbers, parents: npt.NDArray[np.int64]) -> None:  # pragma: no cover
    for i in range(len(first)):
        one, other = np.int64(first[i]), np.int64(second[i])
        if parents[one] < 0:
            parents[one] = one
        if parents[other] < 0:
            parents[other] = other
        one, other = _root(parents, one), _root(parents, other)
        # The smaller number becomes the root, so that a component is named by its first member.
        if one < other:
            parents[other] = one
        else:
            parents[one] = other


@numba.njit(cache=True)
def _flatten(parents: npt.NDArray[np.int64]) -> None:  # pragma: no cover
    for i in range(len(parents)):
        if parents[i] >= 0:
            parents[i] = _root(parents, np.int64(i))
