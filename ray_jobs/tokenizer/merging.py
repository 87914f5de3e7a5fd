"""Learning merges fast: what `reference_bpe.train` learns, in time that grows with what changes.

All distinct words lie end to end as chains of symbols. For each pair of neighbours are kept how often it occurs and the
places where its left symbol has stood; a merge visits these places alone and changes the counts of the pairs around
them. The most frequent pair comes from a heap. Only pairs with the new token become more frequent, and are put into it
after the merge; a count that shrank is put right when its entry comes to the top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.reference_bpe import Pair, Vocabulary

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.uint64]

NOTHING = -1
MOST_BYTES = (2**31 - 1) // 3
"""Of distinct words: pairs and places, of which there may be three for every byte, are numbered in 32 bits."""
# 2^64 over the golden ratio, made odd (Knuth, The Art of Computer Programming 3, section 6.4).
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Words:
    """The distinct words of a corpus, in any order."""

    data: Bytes
    """Their bytes, end to end."""
    ends: Longs
    """[n]: where each one ends."""
    counts: Longs
    """[n]: how often each occurs."""


def train(words: Words, first_tokens: Sequence[bytes], vocab_size: int, min_frequency: int = 1) -> Vocabulary:
    """As `reference_bpe.train`, with the same result. Takes some 60 bytes of memory for each byte of the words.

    Raises:
        ValueError: the distinct words have more than MOST_BYTES.
    """
    if len(words.data) > MOST_BYTES:
        raise ValueError(
            f"the sample's distinct words have {len(words.data):,} bytes, more than {MOST_BYTES:,}: lower "
            "tokenizer.sample_bytes"
        )
    number_of_byte = np.zeros(256, dtype=np.int32)
    for number, token in enumerate(first_tokens):
        number_of_byte[token[0]] = number
    learned = _learn(number_of_byte[words.data], words.ends, words.counts, len(first_tokens), vocab_size, min_frequency)
    tokens = list(first_tokens)
    merges: dict[Pair, int] = {}
    for key in learned.tolist():
        left, right = key >> 32, key & 0xFFFFFFFF
        merges[left, right] = len(tokens)
        tokens.append(tokens[left] + tokens[right])
    return Vocabulary(tuple(tokens), merges)


@numba.njit(cache=True)
def _learn(
    symbols: Ints, ends: Longs, counts: Longs, num_first: int, vocab_size: int, min_frequency: int
) -> Keys:  # pragma: no cover
    """The pair of each merge as left << 32 | right; they make the tokens num_first, num_first + 1, …

    Args:
        symbols: the words' bytes as numbers of tokens; written on.
    """
    size = len(symbols)
    before, after, word_of = _chains(ends, size)
    # Each merge of two symbols makes two pairs at most, so neither pairs nor places nor heap entries pass these bounds.
    # Memory that is not written to is not taken.
    room = 3 * size + 1
    keys = np.empty(room, np.uint64)  # of each pair
    totals = np.empty(room, np.int64)  # how often it occurs
    heads = np.empty(room, np.int32)  # its last place, as an index of the two arrays below
    places, earlier = np.empty(room, np.int32), np.empty(room, np.int32)
    num_pairs, num_places = 0, 0
    slots = np.full(1 << 16, NOTHING, np.int32)

    for place in range(size):
        if after[place] == NOTHING:
            continue
        key = _key(symbols[place], symbols[after[place]])
        slots, num_pairs = _note(
            key, counts[word_of[place]], place, num_places, slots, keys, totals, heads, places, earlier, num_pairs
        )
        num_places += 1

    heap_counts, heap_pairs = np.empty(room, np.int64), np.empty(room, np.int32)
    num_entries = 0
    for pair in range(num_pairs):
        if totals[pair] >= min_frequency:
            _push(heap_counts, heap_pairs, num_entries, totals[pair], pair, keys)
            num_entries += 1

    learned = np.empty(max(0, vocab_size - num_first), np.uint64)
    num_learned = 0
    here = np.empty(1024, np.int32)

    while num_learned < len(learned) and num_entries:
        best, count = heap_pairs[0], heap_counts[0]
        if totals[best] != count:
            if totals[best] >= min_frequency:
                heap_counts[0] = totals[best]
            else:
                num_entries -= 1
                heap_counts[0], heap_pairs[0] = heap_counts[num_entries], heap_pairs[num_entries]
            _sift_down(heap_counts, heap_pairs, num_entries, keys)
            continue
        left, right = int(np.int64(keys[best] >> _HALF)), int(np.int64(keys[best] & np.uint64(0xFFFFFFFF)))

        num_here, entry = 0, heads[best]
        while entry != NOTHING:
            place = places[entry]
            if symbols[place] == left and after[place] != NOTHING and symbols[after[place]] == right:
                if num_here == len(here):
                    here = np.concatenate((here, here))
                here[num_here] = place
                num_here += 1
            entry = earlier[entry]
        heads[best] = NOTHING
        if left == right:
            here[:num_here].sort()  # `aaa` is joined from the left; other pairs do not overlap

        token = num_first + num_learned
        learned[num_learned] = keys[best]
        num_learned += 1

        num_before = num_pairs
        for i in range(num_here):
            place = here[i]
            second = after[place]
            if symbols[place] != left or second == NOTHING or symbols[second] != right:
                continue  # the place was noted twice, or its left symbol has just been joined
            weight = counts[word_of[place]]
            for on_left in (True, False):
                neighbour = before[place] if on_left else after[second]
                if neighbour == NOTHING:
                    continue
                if on_left:
                    old, new, at = _key(symbols[neighbour], left), _key(symbols[neighbour], token), neighbour
                else:
                    old, new, at = _key(right, symbols[neighbour]), _key(token, symbols[neighbour]), place
                totals[slots[_slot(slots, keys, old)]] -= weight
                slots, num_pairs = _note(
                    new, weight, at, num_places, slots, keys, totals, heads, places, earlier, num_pairs
                )
                num_places += 1
            symbols[place], symbols[second] = token, NOTHING
            after[place] = after[second]
            if after[second] != NOTHING:
                before[after[second]] = place
        totals[best] = 0
        # Pairs with the new token are all new, and no others became more frequent.
        for pair in range(num_before, num_pairs):
            if totals[pair] >= min_frequency:
                _push(heap_counts, heap_pairs, num_entries, totals[pair], pair, keys)
                num_entries += 1
    return learned[:num_learned].copy()


@numba.njit(cache=True)
def _chains(ends: Longs, size: int) -> tuple[Ints, Ints, Ints]:  # pragma: no cover
    """For each place the one before and after it in its word, and the word."""
    before, after, word_of = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    start = 0
    for word in range(len(ends)):
        end = ends[word]
        for place in range(start, end):
            before[place] = place - 1 if place > start else NOTHING
            after[place] = place + 1 if place + 1 < end else NOTHING
            word_of[place] = word
        start = end
    return before, after, word_of


@numba.njit(cache=True, inline="always")
def _key(left: int, right: int) -> np.uint64:  # pragma: no cover
    """Keys are in the order of pairs."""
    return np.uint64(left) << _HALF | np.uint64(right)


@numba.njit(cache=True, inline="always")
def _slot(slots: Ints, keys: Keys, key: np.uint64) -> int:  # pragma: no cover
    """Where the pair is in the hash table, or would be put."""
    mask = len(slots) - 1
    mixed = key * _MIX
    slot = int(np.int64((mixed ^ mixed >> _HALF) & np.uint64(mask)))
    while slots[slot] != NOTHING and keys[slots[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@numba.njit(cache=True, inline="always")
def _note(
    key: np.uint64,
    weight: int,
    place: int,
    num_places: int,
    slots: Ints,
    keys: Keys,
    totals: Longs,
    heads: Ints,
    places: Ints,
    earlier: Ints,
    num_pairs: int,
) -> tuple[Ints, int]:  # pragma: no cover
    """Counts the pair at one more place; the table and the number of pairs after that."""
    slot = _slot(slots, keys, key)
    if slots[slot] == NOTHING:
        if 2 * num_pairs > len(slots):
            slots = _larger(slots, keys)
            slot = _slot(slots, keys, key)
        slots[slot] = num_pairs
        keys[num_pairs], totals[num_pairs], heads[num_pairs] = key, 0, NOTHING
        num_pairs += 1
    pair = slots[slot]
    totals[pair] += weight
    places[num_places], earlier[num_places], heads[pair] = place, heads[pair], num_places
    return slots, num_pairs


@numba.njit(cache=True)
def _larger(slots: Ints, keys: Keys) -> Ints:  # pragma: no cover
    """The same pairs in a table of four times the size."""
    larger = np.full(4 * len(slots), NOTHING, np.int32)
    for pair in slots:
        if pair != NOTHING:
            larger[_slot(larger, keys, keys[pair])] = pair
    return larger


@numba.njit(cache=True, inline="always")
def _comes_first(counts: Longs, pairs: Ints, a: int, b: int, keys: Keys) -> bool:  # pragma: no cover
    """Entry a of the heap before entry b: the more frequent pair, of equal ones the smaller."""
    return counts[a] > counts[b] or (counts[a] == counts[b] and keys[pairs[a]] < keys[pairs[b]])


@numba.njit(cache=True, inline="always")
def _swap(counts: Longs, pairs: Ints, a: int, b: int) -> None:  # pragma: no cover
    counts[a], counts[b] = counts[b], counts[a]
    pairs[a], pairs[b] = pairs[b], pairs[a]


@numba.njit(cache=True)
def _push(counts: Longs, pairs: Ints, size: int, count: int, pair: int, keys: Keys) -> None:  # pragma: no cover
    counts[size], pairs[size] = count, pair
    while size:
        parent = (size - 1) >> 1
        if not _comes_first(counts, pairs, size, parent, keys):
            return
        _swap(counts, pairs, size, parent)
        size = parent


@numba.njit(cache=True)
def _sift_down(counts: Longs, pairs: Ints, size: int, keys: Keys) -> None:  # pragma: no cover
    """Puts the first entry where it belongs."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _comes_first(counts, pairs, child + 1, child, keys):
            child += 1
        if not _comes_first(counts, pairs, child, place, keys):
            return
        _swap(counts, pairs, place, child)
        place = child
