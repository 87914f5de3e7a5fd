"""One word to tokens by byte-level BPE (Sennrich, Haddow, Birch, 2016): of all neighbours, the two of the lowest merge
are joined, the leftmost first, until no two have one.

A word of more than WINDOW bytes is done in windows from left to right, in time linear in its length. What is kept of a
window is right whatever comes behind, by two facts. (1) Tokens next to one another in a word's encoding are the
encoding of their own bytes: no merge joins anything across their ends, so merges within are chosen as if nothing stood
around them. (2) Two encodings stand side by side in that of the whole if the last token of the one and the first of the
other do so: were something joined across, the first such merge would join parts of these two, and no merge before it
would have come from outside them. Windows whose tokens do not stand side by side begin again further left.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
from tokenizers import pre_tokenizers

Bytes: TypeAlias = npt.NDArray[np.uint8]
Integers: TypeAlias = npt.NDArray[np.int64]
Tokens: TypeAlias = npt.NDArray[np.uint32]

WINDOW = 256
"""Bytes of a word that are merged at once. The time of a byte grows with it."""
# Tokens that end in the last bytes of a window may come out differently with what is behind.
_TAIL = 64

# A merge in 64 bits: left token 20, right token 20, rank 23.
TOKEN_BITS, RANK_BITS = 20, 23
_GROUP = 4
_EMPTY, _NO_RANK = -1, 1 << RANK_BITS
_NEVER = np.iinfo(np.int64).max
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Knuth, TAOCP 3, section 6.4


class Merges(NamedTuple):
    """The merges of a vocabulary, as compiled loops read them."""

    table: Integers
    """int64 [power of 2]: a hash table of the merges in groups of _GROUP, which are looked through at once and fill up
    from the left; what a full one has no room for is in the next. _EMPTY where there is none."""
    products: Integers
    """int64 [merges]: the token that each makes, by rank."""
    sizes: Integers
    """int64 [tokens]: bytes of each, of special ones those of their names."""
    of_byte: Integers
    """int64 [256]: the token of each byte."""


class Room(NamedTuple):
    """What a word takes while it is merged: int64 each, two for each byte of a window. The symbol that begins at byte i
    has the place i in all; of places within symbols only `joins` is read, which is _NEVER there."""

    symbols: Integers
    following: Integers
    """Where the next symbol begins."""
    preceding: Integers
    joins: Integers
    """rank << 32 | i of the merge of a symbol with the next, or _NEVER."""


@functools.cache
def byte_alphabet() -> Mapping[str, int]:
    """The character by which GPT-2's files write each byte: printable ones as they are, others from U+0100 on."""
    plain = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)]
    others = sorted(set(range(256)) - set(plain))
    alphabet = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    return alphabet


def from_vocabulary(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]]) -> Merges | None:
    """Of a byte-level BPE's tokens and merges by rank; None where some byte has no token, or numbers are too large."""
    alphabet = byte_alphabet()
    num_tokens = max(vocabulary.values(), default=-1) + 1
    if not vocabulary.keys() >= alphabet.keys() or num_tokens >= 1 << TOKEN_BITS or len(merges) >= 1 << RANK_BITS:
        return None
    of_byte = np.zeros(256, dtype=np.int64)
    of_byte[list(alphabet.values())] = [vocabulary[character] for character in alphabet]
    sizes = np.zeros(num_tokens, dtype=np.int64)
    sizes[list(vocabulary.values())] = [len(token) for token in vocabulary]
    pairs = np.array([(vocabulary[left], vocabulary[right]) for left, right in merges], np.int64).reshape(-1, 2)
    products = np.array([vocabulary[left + right] for left, right in merges], np.int64)
    table = np.full(1 << max(4, (2 * len(merges)).bit_length()), _EMPTY, dtype=np.int64)
    _fill(table, pairs)
    return Merges(table, products, sizes, of_byte)


def new_room(num_bytes: int = 2 * WINDOW) -> Room:
    return Room(*(np.empty(num_bytes, dtype=np.int64) for _ in range(4)))


def encode_word(word: bytes, merges: Merges) -> list[int]:
    tokens = np.empty(len(word), dtype=np.uint32)
    data = np.frombuffer(word, dtype=np.uint8)
    return tokens[: merge(data, 0, len(word), merges, new_room(), tokens, 0)].tolist()


@numba.njit(cache=True)
def _fill(table: Integers, pairs: Integers) -> None:  # pragma: no cover
    for rank in range(len(pairs)):
        key = pairs[rank, 0] << TOKEN_BITS | pairs[rank, 1]
        place = _group(key, table)
        while table[place] != _EMPTY and table[place] >> RANK_BITS != key:
            place = (place + 1) & (len(table) - 1)
        table[place] = key << RANK_BITS | rank  # of two merges of the same tokens the later counts, as in tokenizers


@numba.njit(cache=True, forceinline=True)
def _group(key: int, table: Integers) -> np.int64:  # pragma: no cover
    return np.int64((np.uint64(key) * SPREAD) >> np.uint64(32)) & (len(table) - _GROUP)


@numba.njit(cache=True, forceinline=True)
def _join(symbols: Integers, i: int, j: int, table: Integers) -> np.int64:  # pragma: no cover
    """rank << 32 | i of the merge of the symbols at i and j, or _NEVER."""
    key = symbols[i] << TOKEN_BITS | symbols[j]
    place = _group(key, table)
    rank = np.int64(_NO_RANK)
    while True:
        for k in range(_GROUP):  # without a branch on what is found
            other = table[place + k] ^ key << RANK_BITS
            rank = other if other >> RANK_BITS == 0 else rank
        if rank != _NO_RANK or table[place + _GROUP - 1] == _EMPTY:
            break
        place = (place + _GROUP) & (len(table) - 1)
    return np.int64(_NEVER) if rank == _NO_RANK else rank << 32 | i


@numba.njit(cache=True, forceinline=True)
def _merge_all(data: Bytes, start: int, end: int, merges: Merges, room: Room) -> None:  # pragma: no cover
    """Leaves the tokens of so many bytes in `room`."""
    symbols, following, preceding, joins = room
    size = end - start
    for i in range(size):
        symbols[i] = merges.of_byte[data[start + i]]
        following[i] = i + 1
        preceding[i] = i - 1
    for i in range(size - 1):
        joins[i] = _join(symbols, i, i + 1, merges.table)
    joins[size - 1] = _NEVER
    while True:
        least = _NEVER
        for i in range(size):  # compiled to a few instructions for eight at a time
            least = min(least, joins[i])
        if least == _NEVER:
            return
        i = least & 0xFFFFFFFF
        j = following[i]
        after = following[j]
        symbols[i] = merges.products[least >> 32]
        following[i] = after
        joins[j] = _NEVER
        joins[i] = _NEVER
        if after < size:
            preceding[after] = i
            joins[i] = _join(symbols, i, after, merges.table)
        before = preceding[i]
        if before >= 0:
            joins[before] = _join(symbols, before, i, merges.table)


@numba.njit(cache=True, forceinline=True)
def _write(size: int, room: Room, tokens: Tokens, at: int) -> int:  # pragma: no cover
    """Copies the tokens of `size` bytes out of the room; returns where they end."""
    i = 0
    while i < size:
        tokens[at] = room.symbols[i]
        at += 1
        i = room.following[i]
    return at


@numba.njit(cache=True, forceinline=True)
def merge(
    data: Bytes, start: int, end: int, merges: Merges, room: Room, tokens: Tokens, at: int
) -> int:  # pragma: no cover
    """Writes the tokens of the word data[start:end] from `at` on, where there is place for end - start of them; returns
    where they end."""
    if end - start <= WINDOW:
        _merge_all(data, start, end, merges, room)
        return _write(end - start, room, tokens, at)
    return _merge_windows(data, start, end, merges, room, tokens, at)


@numba.njit(cache=True)
def _merge_windows(
    data: Bytes, start: int, end: int, merges: Merges, room: Room, tokens: Tokens, at: int
) -> int:  # pragma: no cover
    """The same of a long word."""
    begin = at
    first, furthest = start, start
    size, back = WINDOW, 1
    while True:
        stop = min(first + size, end)
        if 2 * (stop - first) > len(room.symbols):
            longer = np.empty((4, 4 * (stop - first)), dtype=np.int64)
            room = Room(longer[0], longer[1], longer[2], longer[3])
        _merge_all(data, first, stop, merges, room)
        written = _write(stop - first, room, tokens, at)
        if at > begin and not _stand(data, first, merges, room, tokens, at):
            for _ in range(back):
                if at > begin:
                    at -= 1
                    first -= merges.sizes[tokens[at]]
            size, back = stop - first, 2 * back
            continue
        if stop == end:
            return written
        kept = stop
        while kept > stop - _TAIL:
            written -= 1
            kept -= merges.sizes[tokens[written]]
        if kept <= furthest:
            size *= 2
            continue
        first, furthest, at = kept, kept, written
        size, back = WINDOW, 1


@numba.njit(cache=True)
def _stand(data: Bytes, border: int, merges: Merges, room: Room, tokens: Tokens, at: int) -> bool:  # pragma: no cover
    """Whether the tokens before and behind place `at`, which meet at byte `border`, are the encoding of their bytes."""
    last, head = merges.sizes[tokens[at - 1]], merges.sizes[tokens[at]]
    _merge_all(data, border - last, border + head, merges, room)
    return bool(room.following[0] == last and room.following[last] == last + head)
