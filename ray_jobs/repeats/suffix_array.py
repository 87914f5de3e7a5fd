"""The suffix array of a file's words, and the windows that it finds repeated: the method of Lee et al. (2022).

Words are numbered first, equal ones alike, so a suffix is one of words and not of bytes: six times fewer, and no repeat
begins within a word. Suffixes with `num_words` words in common stand side by side in the array, which the longest
common prefixes of neighbours tell; the earliest of them is the first place. Nothing is hashed, so nothing is left to
verify. Time and memory are linear in the words, whatever they are.

Sources: Nong, Zhang and Chan, "Linear Suffix Array Construction by Almost Pure Induced-Sorting" (2009), for the array;
Kasai et al., "Linear-Time Longest-Common-Prefix Computation in Suffix Arrays and Its Applications" (2001).
"""

from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.repeats.words import Bytes, Hashes, Offsets, Words, equal

Numbers: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]

MAX_WORDS = 2**31 - 1
_NONE = np.int32(-1)


def first_places(words: Words, num_words: int) -> Offsets:
    """int64 [w]: where among these words the window of each word stands first (itself, where there is no earlier
    place); -1 where no window begins. Equal to `windows.first_places`."""
    if len(words) > MAX_WORDS:
        raise ValueError(f"a file of {len(words):,} words is too long for the suffix array: take method windows")
    first = np.full(len(words), -1, dtype=np.int64)
    ids, num_ids = word_ids(words)
    suffixes = suffix_array(ids, num_ids)
    _first_of_alike(suffixes, _alike(ids, suffixes, num_words), _window_begins(words.offsets, num_words), first)
    return first


def word_ids(words: Words) -> tuple[Numbers, int]:
    """int32 [w]: a number for each word, the same for equal ones; and how many there are."""
    ids = np.empty(len(words), dtype=np.int32)
    slots = np.full(2 << len(words).bit_length(), _NONE)
    return ids, _word_ids(words.data, words.starts, words.ends, words.hashes, slots, ids)


def suffix_array(ids: Numbers, num_ids: int) -> Numbers:
    """int32 [w]: where the suffixes of `ids` begin (int32 [w], each below `num_ids`), in their order; a suffix comes
    before those that it begins."""
    is_small = _smaller_than_next(ids)
    places = _leftmost_small(is_small)
    edges = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(np.bincount(ids, minlength=num_ids))])
    edges = edges.astype(np.int32)
    suffixes = np.empty(len(ids), dtype=np.int32)
    _induce(ids, is_small, places, edges, suffixes)
    if len(places) > 1:
        names, num_names = _name_pieces(ids, is_small, places, suffixes)
        if num_names == len(places):
            order = np.empty_like(names)
            order[names] = np.arange(len(names), dtype=np.int32)
        else:
            order = suffix_array(names, num_names)
        _induce(ids, is_small, places[order], edges, suffixes)
    return suffixes


def _window_begins(offsets: Offsets, num_words: int) -> Flags:
    """Whether a window begins at each word, that is, ends in the same document."""
    edges = np.zeros(int(offsets[-1]) + 1, dtype=np.int32)
    ends = np.maximum(offsets[1:] - num_words + 1, offsets[:-1])
    np.add.at(edges, offsets[:-1], 1)
    np.add.at(edges, ends, -1)
    return np.cumsum(edges[:-1]) > 0


@numba.njit(cache=True)
def _word_ids(
    data: Bytes, starts: Offsets, ends: Offsets, hashes: Hashes, slots: Numbers, ids: Numbers
) -> int:  # pragma: no cover
    """`slots`: a table with open addressing, a power of two long, of the first word with each number."""
    num_ids, mask = np.int32(0), np.uint64(len(slots) - 1)
    for word in range(len(starts)):
        slot = hashes[word] & mask
        while slots[slot] >= 0:
            known = slots[slot]
            if hashes[known] == hashes[word] and equal(
                data, starts[known], ends[known], data, starts[word], ends[word]
            ):
                break
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot], ids[word] = word, num_ids
            num_ids += np.int32(1)
        else:
            ids[word] = ids[slots[slot]]
    return int(num_ids)


@numba.njit(cache=True)
def _smaller_than_next(ids: Numbers) -> Flags:  # pragma: no cover
    """Type S of Nong et al.: whether a suffix comes before the one that begins behind it. The last does not."""
    is_small = np.zeros(len(ids), dtype=np.bool_)
    for i in range(len(ids) - 2, -1, -1):
        is_small[i] = ids[i] < ids[i + 1] or (ids[i] == ids[i + 1] and is_small[i + 1])
    return is_small


@numba.njit(cache=True)
def _leftmost_small(is_small: Flags) -> Numbers:  # pragma: no cover
    """Type LMS: of each run of small suffixes the first, where a larger one stands before it; ascending."""
    places = np.empty(len(is_small) // 2, dtype=np.int32)
    number = 0
    for i in range(1, len(is_small)):
        if is_small[i] and not is_small[i - 1]:
            places[number] = i
            number += 1
    return places[:number]


@numba.njit(cache=True)
def _induce(
    ids: Numbers, is_small: Flags, places: Numbers, edges: Numbers, suffixes: Numbers
) -> None:  # pragma: no cover
    """Sorts all suffixes, given the leftmost small ones in their order: large ones follow from those behind them going
    up, small ones going down. Given them in any order, sorts them by their pieces: each up to the next of them.

    `edges`: where in the array each number's suffixes begin, and its length.
    """
    suffixes[:] = _NONE
    tails = edges[1:].copy()
    for i in range(len(places) - 1, -1, -1):
        own = ids[places[i]]
        tails[own] -= 1
        suffixes[tails[own]] = places[i]
    heads = edges[:-1].copy()
    last = len(ids) - 1
    if last >= 0:
        suffixes[heads[ids[last]]] = last
        heads[ids[last]] += 1
    for i in range(len(suffixes)):
        before = suffixes[i] - 1
        if before >= 0 and not is_small[before]:
            suffixes[heads[ids[before]]] = before
            heads[ids[before]] += 1
    tails[:] = edges[1:]
    for i in range(len(suffixes) - 1, -1, -1):
        before = suffixes[i] - 1
        if before >= 0 and is_small[before]:
            tails[ids[before]] -= 1
            suffixes[tails[ids[before]]] = before


@numba.njit(cache=True)
def _name_pieces(
    ids: Numbers, is_small: Flags, places: Numbers, suffixes: Numbers
) -> tuple[Numbers, int]:  # pragma: no cover
    """A number for the piece at each of the places, in the order of pieces, the same for equal ones; and how many."""
    number_at = np.empty(len(ids) // 2 + 1, dtype=np.int32)  # by half of a place: no two are neighbours
    for i in range(len(places)):
        number_at[places[i] // 2] = i
    names = np.empty(len(places), dtype=np.int32)
    name, former = _NONE, _NONE
    for place in suffixes:
        if place == 0 or not is_small[place] or is_small[place - 1]:
            continue
        own = number_at[place // 2]
        if former < 0 or not _same_piece(ids, places, int(former), int(own)):
            name += np.int32(1)
        names[own] = name
        former = own
    return names, int(name) + 1


@numba.njit(cache=True)
def _same_piece(ids: Numbers, places: Numbers, one: int, other: int) -> bool:  # pragma: no cover
    if max(one, other) + 1 == len(places):
        return False  # the last piece ends where the text does
    length = places[one + 1] - places[one]
    if places[other + 1] - places[other] != length:
        return False
    i = 0
    while i <= length and ids[places[one] + i] == ids[places[other] + i]:
        i += 1
    return bool(i > length)


@numba.njit(cache=True)
def _alike(ids: Numbers, suffixes: Numbers, num_words: int) -> Flags:  # pragma: no cover
    """Whether the suffix that begins at each word has its first words in common with the one before it in the array."""
    before = np.empty(len(ids), dtype=np.int32)
    former = _NONE
    for place in suffixes:
        before[place] = former
        former = place
    alike = np.zeros(len(ids), dtype=np.bool_)
    common = 0
    for place in range(len(ids)):
        other = before[place]
        if other < 0:
            common = 0
            continue
        while max(place, other) + common < len(ids) and ids[place + common] == ids[other + common]:
            common += 1
        alike[place] = common >= num_words
        common = max(common - 1, 0)
    return alike


@numba.njit(cache=True)
def _first_of_alike(suffixes: Numbers, alike: Flags, is_window: Flags, first: Offsets) -> None:  # pragma: no cover
    start = 0
    while start < len(suffixes):
        end, earliest = start, np.int64(len(suffixes))
        while end == start or (end < len(suffixes) and alike[suffixes[end]]):
            if is_window[suffixes[end]]:
                earliest = min(earliest, np.int64(suffixes[end]))
            end += 1
        for i in range(start, end):
            if is_window[suffixes[i]]:
                first[suffixes[i]] = earliest
        start = end
