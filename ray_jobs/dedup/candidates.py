"""Which documents may be duplicates of one another: groups of equal hashes, joined into components.

A component is all documents that a chain of equal exact hashes or equal bands connects. It deletes nothing by itself (a
chain of near-duplicates joins documents that share nothing); it says which documents must be compared, and lets
components be compared apart from one another.

Equal keys are found by sorting integers that hold the key's upper bits and the document's number in the lower ones: one
sort of 8 bytes a document a band, no table of lists. With d documents, 64 - ⌈log2 d⌉ bits of the key are left; the few
keys that agree in those by chance only make a component larger than it need be.
"""

from collections.abc import Iterable

import numba
import numpy as np
import numpy.typing as npt


def first_of_equal(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each document the first with the same 128-bit hash (itself, where there is no earlier): int64 [n].

    `hashes` is uint64 [n, 2], in the order of documents.
    """
    first = np.arange(len(hashes), dtype=np.int64)
    packed, bits = _pack_and_sort(hashes[:, 0], np.arange(len(hashes), dtype=np.uint64))
    _first_of_equal(packed, bits, np.ascontiguousarray(hashes), first)
    return first


def components(
    num_documents: int, first: npt.NDArray[np.int64], bands: Iterable[npt.NDArray[np.uint64]]
) -> npt.NDArray[np.int64]:
    """The component of each document, named by its first member: int64 [n].

    `first` is what `first_of_equal` gave: only first documents take part in the bands, the others follow theirs.
    `bands` yields each band's keys, uint64 [n]; one band at a time is held sorted.
    """
    parents = first.copy()
    numbers = np.flatnonzero(first == np.arange(num_documents)).astype(np.uint64)
    for keys in bands:
        packed, bits = _pack_and_sort(keys, numbers)
        _join_equal(packed, bits, parents)
    _flatten(parents)
    return parents


def _pack_and_sort(keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], int]:
    """Sorted (upper bits of keys[number] ‖ number) of the given ascending documents, and how many bits the number
    takes."""
    bits = max(1, (len(keys) - 1).bit_length()) if len(keys) else 1
    packed = keys[numbers]
    packed &= ~np.uint64((1 << bits) - 1)
    packed |= numbers
    # Two passes, which leave four documents a bucket: one pass over so many buckets would miss the cache at every step.
    first_bits = max(1, (bits - 2) // 2)
    _sort_by_bucket(packed, np.empty_like(packed), first_bits, max(1, bits - 2 - first_bits))
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
def _scatter(
    source: npt.NDArray[np.uint64],
    target: npt.NDArray[np.uint64],
    start: int,
    end: int,
    shift: int,
    ends: npt.NDArray[np.int64],
) -> None:  # pragma: no cover
    """Copies source[start:end] to target[start:end] in the order of the bits above `shift` that number the buckets.

    On return `ends` holds the end of each bucket; their number is a power of two.
    """
    mask = np.uint64(len(ends) - 1)
    ends[:] = 0
    for i in range(start, end):
        ends[np.int64((source[i] >> np.uint64(shift)) & mask)] += 1
    begin = start
    for bucket in range(len(ends)):
        size = int(ends[bucket])
        ends[bucket] = begin
        begin += size
    for i in range(start, end):
        place = np.int64((source[i] >> np.uint64(shift)) & mask)
        target[ends[place]] = source[i]
        ends[place] += 1


@numba.njit(cache=True)
def _sort_by_bucket(
    values: npt.NDArray[np.uint64], scratch: npt.NDArray[np.uint64], first_bits: int, second_bits: int
) -> None:  # pragma: no cover
    """Sorts in place, by the uppermost bits, then the next, then within buckets: a third of the time of np.sort."""
    outer = np.empty(1 << first_bits, dtype=np.int64)
    inner = np.empty(1 << second_bits, dtype=np.int64)
    _scatter(values, scratch, 0, len(values), 64 - first_bits, outer)
    start = 0
    for bucket in range(len(outer)):
        _scatter(scratch, values, start, int(outer[bucket]), 64 - first_bits - second_bits, inner)
        for inner_bucket in range(len(inner)):
            end = int(inner[inner_bucket])
            _sort_range(values, start, end)
            start = end


@numba.njit(cache=True)
def _first_of_equal(
    packed: npt.NDArray[np.uint64], bits: int, hashes: npt.NDArray[np.uint64], first: npt.NDArray[np.int64]
) -> None:  # pragma: no cover
    mask = np.uint64((1 << bits) - 1)
    start = 0
    for i in range(1, len(packed)):
        if (packed[i] ^ packed[start]) >> np.uint64(bits) != 0:
            start = i
            continue
        number = np.int64(packed[i] & mask)
        # The whole hashes decide. Numbers ascend within equal keys, so the first that is equal is the first document.
        for j in range(start, i):
            earlier = np.int64(packed[j] & mask)
            if (
                first[earlier] == earlier
                and hashes[earlier, 0] == hashes[number, 0]
                and hashes[earlier, 1] == hashes[number, 1]
            ):
                first[number] = earlier
                break


@numba.njit(cache=True)
def _root(parents: npt.NDArray[np.int64], i: np.int64) -> np.int64:  # pragma: no cover
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@numba.njit(cache=True)
def _join_equal(packed: npt.NDArray[np.uint64], bits: int, parents: npt.NDArray[np.int64]) -> None:  # pragma: no cover
    mask = np.uint64((1 << bits) - 1)
    for i in range(1, len(packed)):
        if (packed[i] ^ packed[i - 1]) >> np.uint64(bits) == 0:
            one = _root(parents, np.int64(packed[i - 1] & mask))
            other = _root(parents, np.int64(packed[i] & mask))
            # The smaller number becomes the root, so that a component is named by its first member.
            if one < other:
                parents[other] = one
            else:
                parents[one] = other


@numba.njit(cache=True)
def _flatten(parents: npt.NDArray[np.int64]) -> None:  # pragma: no cover
    for i in range(len(parents)):
        parents[i] = _root(parents, np.int64(i))
