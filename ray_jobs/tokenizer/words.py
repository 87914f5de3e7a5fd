"""Documents to tokens, word by word: what was encoded once is looked up.

Words repeat: a few thousand make up most of a text. An open-addressing hash table maps a word's bytes to its tokens; a
word is found by its bytes, never by a hash alone. The table is emptied when it is full, so that it takes the same
memory whatever goes through it. What it holds makes encoding faster and has no influence on the tokens.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.merges import SPREAD, TOKEN_BITS, Bytes, Integers, Merges, Room, Tokens, merge
from ray_jobs.tokenizer.splitting import Eights, word_end

_SLOTS, _STORED_TOKENS, _STORED_BYTES = 1 << 18, 1 << 20, 1 << 22
"""Slots of 32 bytes, of which half are taken at most; room for the tokens of words that have more than INLINE, and for
the bytes of long words."""
INLINE = 3
"""Tokens that a slot itself has room for, of TOKEN_BITS each."""
_SHORT, _LONGEST = 15, 128
"""Bytes of a word that a slot has room for, and of the longest that is kept."""
_PADDING = 2 * 8  # what is read for a short word
# All unsigned, as numba lets nothing signed overflow, and makes floats of signed and unsigned numbers together.
_OTHER_SPREAD = np.uint64(0x2545F4914F6CDD1D)  # of xorshift64* (Vigna, 2016)
_HALF, _SIZE_AT, _NUMBER_AT = np.uint64(32), np.uint64(56), np.uint64(60)
_PLACE = np.uint64((1 << 60) - 1)
_TOKEN, _SECOND, _THIRD = np.uint64((1 << TOKEN_BITS) - 1), np.uint64(TOKEN_BITS), np.uint64(2 * TOKEN_BITS)
_FREE = np.uint64(0)
# The bytes that belong to a word of each length, of the first and the second eight.
_LOW = np.array([(1 << 8 * min(size, 8)) - 1 for size in range(16)], dtype=np.uint64)
_HIGH = np.array([(1 << 8 * max(size - 8, 0)) - 1 for size in range(16)], dtype=np.uint64)


class Cache(NamedTuple):
    slots: npt.NDArray[np.uint64]
    """uint64 [4 * slots], four numbers a slot, of one of two kinds:

    short  bytes 0 to 7 | bytes 8 to 14, length << 56 | tokens | unused
    long   hash | length << 56 | tokens | where its bytes begin in `bytes`

    "tokens" are their number << 60 and the tokens themselves, or (INLINE + 1) << 60 and where they begin in `tokens`,
    their number before them. The second is 0 in a slot that is free."""
    tokens: npt.NDArray[np.uint32]
    bytes: Bytes
    used: Integers
    """int64 [3]: slots, tokens and bytes in use."""


def new_cache(num_slots: int = _SLOTS, num_tokens: int = _STORED_TOKENS, num_bytes: int = _STORED_BYTES) -> Cache:
    """Of a power of 2 of slots, with room for the tokens and the bytes of a longest word at least."""
    assert num_slots & (num_slots - 1) == 0 and num_tokens > _LONGEST and num_bytes >= _LONGEST
    return Cache(
        np.zeros(4 * num_slots, dtype=np.uint64),
        np.empty(num_tokens, dtype=np.uint32),
        np.empty(num_bytes, dtype=np.uint8),
        np.zeros(3, dtype=np.int64),
    )


@numba.njit(cache=True, inline="always")
def _mixed(low: np.uint64, high: np.uint64) -> np.uint64:  # pragma: no cover
    value = (low * SPREAD) ^ (high * _OTHER_SPREAD)
    return (value ^ (value >> _HALF)) * SPREAD


@numba.njit(cache=True, inline="always")
def _slot(low: np.uint64, high: np.uint64, slots: npt.NDArray[np.uint64]) -> np.int64:  # pragma: no cover
    """The first of the slots, as a place in `slots`, that the word may be in."""
    return np.int64(_mixed(low, high) >> _HALF) & (len(slots) - 4)


@numba.njit(cache=True, forceinline=True)
def _key(data: Bytes, start: int, end: int) -> tuple[np.uint64, np.uint64]:  # pragma: no cover
    """The first two numbers of a word's slot, byte by byte."""
    size = np.uint64(end - start) << _SIZE_AT
    low, high, shift = np.uint64(0), np.uint64(0), np.uint64(0)
    if end - start <= _SHORT:
        for i in range(start, end):
            if i - start < 8:
                low |= np.uint64(data[i]) << shift
            else:
                high |= np.uint64(data[i]) << shift
            shift = (shift + np.uint64(8)) & np.uint64(63)
        return low, high | size
    for i in range(start, end):
        high |= np.uint64(data[i]) << shift
        shift = (shift + np.uint64(8)) & np.uint64(63)
        if shift == 0:
            low, high = _mixed(low, high), np.uint64(0)
    return _mixed(low, high), size


@numba.njit(cache=True)
def _same(data: Bytes, start: int, size: int, stored: Bytes, place: np.int64) -> bool:  # pragma: no cover
    i = 0
    while i < size and data[start + i] == stored[place + i]:
        i += 1
    return i == size


@numba.njit(cache=True)
def _encode_word(
    data: Bytes, start: int, end: int, merges: Merges, room: Room, cache: Cache, tokens: Tokens, at: int
) -> int:  # pragma: no cover
    """Writes the tokens of one word from `at` on; returns where they end."""
    size = end - start
    if size > _LONGEST:
        return merge(data, start, end, merges, room, tokens, at)
    slots, stored_tokens, stored_bytes, used = cache
    low, high = _key(data, start, end)
    slot = _slot(low, high, slots)
    while slots[slot + 1] != _FREE:
        if (
            slots[slot] == low
            and slots[slot + 1] == high
            and (size <= _SHORT or _same(data, start, size, stored_bytes, np.int64(slots[slot + 3])))
        ):
            return _copy(slots[slot + 2], stored_tokens, tokens, at)  # type: ignore[return-value]
        slot = (slot + 4) & (len(slots) - 1)
    first = at
    at = merge(data, start, end, merges, room, tokens, at)
    number = at - first
    if (
        8 * (used[0] + 1) > len(slots)
        or used[1] + number + 1 > len(stored_tokens)
        or used[2] + size > len(stored_bytes)
    ):
        slots[:] = _FREE
        used[:] = 0
        slot = _slot(low, high, slots)
    slots[slot], slots[slot + 1] = low, high
    slots[slot + 2] = _stored(tokens, first, number, stored_tokens, used)
    if size > _SHORT:
        slots[slot + 3] = np.uint64(used[2])
        for i in range(size):
            stored_bytes[used[2] + i] = data[start + i]
        used[2] += size
    used[0] += 1
    return at


@numba.njit(cache=True, forceinline=True)
def _stored(
    tokens: Tokens, first: int, number: int, stored_tokens: npt.NDArray[np.uint32], used: Integers
) -> np.uint64:  # pragma: no cover
    """The third number of a word's slot."""
    if number <= INLINE:
        found = np.uint64(number) << _NUMBER_AT
        for i in range(number):
            found |= np.uint64(tokens[first + i]) << np.uint64(i * TOKEN_BITS)
        return found
    place = used[1]
    stored_tokens[place] = number
    for i in range(number):
        stored_tokens[place + 1 + i] = tokens[first + i]
    used[1] += number + 1
    return np.uint64(INLINE + 1) << _NUMBER_AT | np.uint64(place)


@numba.njit(cache=True, forceinline=True)
def _copy(
    found: np.uint64, stored_tokens: npt.NDArray[np.uint32], tokens: Tokens, at: int
) -> np.int64:  # pragma: no cover
    number = np.int64(found >> _NUMBER_AT)
    if number <= INLINE:
        for i in range(number):
            tokens[at + i] = found >> np.uint64(i * TOKEN_BITS) & _TOKEN
        return at + number
    place = np.int64(found & _PLACE)
    number = np.int64(stored_tokens[place])
    for i in range(number):
        tokens[at + i] = stored_tokens[place + 1 + i]
    return at + number


@numba.njit(cache=True)
def encode(
    data: Bytes,
    runs: Eights,
    offsets: Integers,
    pattern: int,
    classes: Bytes,
    merges: Merges,
    room: Room,
    cache: Cache,
    end_of_text: int,
    tokens: Tokens,
    lengths: Integers,
) -> int:  # pragma: no cover
    """Writes the tokens of documents of sound UTF-8 end to end, each followed by `end_of_text`, and the length of each
    with it; returns where they end. `tokens` has room for a token of each byte, one of each document and INLINE more;
    `runs` are the data's `eights`."""
    slots = cache.slots
    mask = len(slots) - 1
    at = 0
    for document in range(len(offsets) - 1):
        begin = at
        start, stop = offsets[document], offsets[document + 1]
        while start < stop:
            end = word_end(data, runs, start, stop, classes, pattern)
            size = end - start
            if size <= _SHORT and start + _PADDING <= len(data):
                # What most words are: short, and seen before.
                low = runs[start] & _LOW[size]
                high = runs[start + 8] & _HIGH[size] | np.uint64(size) << _SIZE_AT
                slot = _slot(low, high, slots)
                while slots[slot + 1] != _FREE and (slots[slot] != low or slots[slot + 1] != high):
                    slot = (slot + 4) & mask
                found = slots[slot + 2]
                number = np.int64(found >> _NUMBER_AT)
                if slots[slot + 1] != _FREE and number <= INLINE:
                    tokens[at] = found & _TOKEN
                    tokens[at + 1] = found >> _SECOND & _TOKEN
                    tokens[at + 2] = found >> _THIRD & _TOKEN
                    at += number  # type: ignore[assignment]
                    start = end
                    continue
            at = _encode_word(data, start, end, merges, room, cache, tokens, at)
            start = end
        tokens[at] = end_of_text
        at += 1
        lengths[document] = at - begin
    return at
