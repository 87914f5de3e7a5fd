"""The distinct words of a stream of texts, and how often each occurs: what training holds of its sample.

Words are cut by `splitting` in the texts' own bytes and looked up in one open-addressing hash table, 45 MB/s a core.
One of more than LONGEST_WORD bytes is data that somebody left in a page: it is counted in parts.
"""

from collections.abc import Iterable

import numba
import numpy as np
import pyarrow as pa

from ray_jobs.files.columns import text_buffers
from ray_jobs.tokenizer.characters import classes
from ray_jobs.tokenizer.merging import NOTHING, Bytes, Ints, Keys, Longs, Words
from ray_jobs.tokenizer.splitting import Eights, Pattern, eights, word_end

LONGEST_WORD = 2048
BATCH_BYTES = 1 << 22
BLANKS = -1
"""In place of a `Pattern`: words as SentencePiece cuts them, blanks with what follows up to the next blank, within
lines. A line begins with one blank more than it has."""

_NEWLINE, _BLANK = ord("\n"), ord(" ")
# Of 64-bit FNV-1a (Fowler, Noll, Vo).
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_HALF = np.uint64(32)


class WordCounter:
    """Counts of distinct words, in the order in which they were first met."""

    def __init__(self, pattern: Pattern | int):
        self._pattern = int(pattern)
        self._classes = classes()
        self._slots = np.full(1 << 16, NOTHING, np.int32)
        self._data = np.empty(1 << 20, np.uint8)
        self._ends = np.empty(1 << 16, np.int64)
        self._hashes = np.empty(1 << 16, np.uint64)
        self._counts = np.empty(1 << 16, np.int64)
        self._num_words = 0

    def add(self, texts: Iterable[str]) -> None:
        """Counts the words of texts without lone surrogates."""
        batch: list[bytes] = []
        size = 0
        for text in texts:
            data = text.encode()
            batch.append(data)
            size += len(data)
            if size >= BATCH_BYTES:
                self._add_batch(batch)
                batch, size = [], 0
        self._add_batch(batch)

    def _add_batch(self, batch: list[bytes]) -> None:
        data = np.frombuffer(b"".join(batch), np.uint8)
        ends = np.cumsum([len(one) for one in batch], dtype=np.int64)
        # A line's first word has a blank that is not in the text.
        self._make_room(len(data) + 1, 2 * len(data) + len(batch) if self._pattern == BLANKS else len(data))
        self._slots, self._num_words = _count_texts(
            data, eights(data), ends, self._classes, self._pattern, self._slots, *self._table, self._num_words
        )

    def add_words(self, words: Words) -> None:
        """Adds what another counter has."""
        self._make_room(len(words.ends), len(words.data))
        self._slots, self._num_words = _add_counted(
            words.data, words.ends, words.counts, self._slots, *self._table, self._num_words
        )

    @property
    def words(self) -> Words:
        size = self._num_words
        num_bytes = int(self._ends[size - 1]) if size else 0
        return Words(self._data[:num_bytes], self._ends[:size], self._counts[:size])

    @property
    def _table(self) -> tuple[Bytes, Longs, Keys, Longs]:
        return self._data, self._ends, self._hashes, self._counts

    def _make_room(self, num_words: int, num_bytes: int) -> None:
        """For so many more."""
        self._data = _grown(self._data, len(self.words.data) + num_bytes)
        for name in ("_ends", "_hashes", "_counts"):
            setattr(self, name, _grown(getattr(self, name), self._num_words + num_words))


def _grown(array: np.ndarray, least: int) -> np.ndarray:
    if least <= len(array):
        return array
    larger = np.empty(max(2 * len(array), least), array.dtype)
    larger[: len(array)] = array
    return larger


def to_table(words: Words) -> pa.Table:
    """Columns word (binary) and count (int64), to be stored."""
    offsets = np.concatenate([np.zeros(1, np.int64), words.ends])
    column = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(words.ends), [None, pa.py_buffer(offsets), pa.py_buffer(words.data)]
    )
    return pa.table({"word": column, "count": words.counts})


def from_table(table: pa.Table) -> Words:
    data, ends = text_buffers(table["word"])
    return Words(data[ends[0] : ends[-1]], ends[1:] - ends[0], table["count"].to_numpy())


@numba.njit(cache=True)
def _count_texts(
    text: Bytes,
    runs: Eights,
    text_ends: Longs,
    classes: Bytes,
    pattern: int,
    slots: Ints,
    data: Bytes,
    ends: Longs,
    hashes: Keys,
    counts: Longs,
    num_words: int,
) -> tuple[Ints, int]:  # pragma: no cover
    """The table and the number of words after the texts were counted."""
    i = 0
    for end in text_ends:
        line_begins = True
        while i < end:
            if pattern == BLANKS:
                if text[i] == _NEWLINE:
                    i, line_begins = i + 1, True
                    continue
                stop = _blanks_end(text, i, end, line_begins)
            else:
                stop = word_end(text, runs, i, end, classes, pattern)
            while i < stop:
                part = stop
                if stop - i > LONGEST_WORD:
                    part = i + LONGEST_WORD
                    while text[part] & 0xC0 == 0x80:  # not within a character
                        part -= 1
                slots, num_words = _add(
                    text, i, part, pattern == BLANKS and line_begins, 1, slots, data, ends, hashes, counts, num_words
                )
                i, line_begins = part, False
    return slots, num_words


@numba.njit(cache=True)
def _add_counted(
    words: Bytes,
    word_ends: Longs,
    weights: Longs,
    slots: Ints,
    data: Bytes,
    ends: Longs,
    hashes: Keys,
    counts: Longs,
    num_words: int,
) -> tuple[Ints, int]:  # pragma: no cover
    start = 0
    for i in range(len(word_ends)):
        slots, num_words = _add(
            words, start, word_ends[i], False, weights[i], slots, data, ends, hashes, counts, num_words
        )
        start = word_ends[i]
    return slots, num_words


@numba.njit(cache=True, inline="always")
def _blanks_end(text: Bytes, i: int, end: int, line_begins: bool) -> int:  # pragma: no cover
    """Past the blanks from i on and what follows them in the line. Blanks at a line's end are a word."""
    while i < end and text[i] == _BLANK:
        i += 1
    while i < end and text[i] != _BLANK and text[i] != _NEWLINE:
        i += 1
    return i


@numba.njit(cache=True, inline="always")
def _add(
    text: Bytes,
    start: int,
    stop: int,
    blank_before: bool,
    weight: int,
    slots: Ints,
    data: Bytes,
    ends: Longs,
    hashes: Keys,
    counts: Longs,
    num_words: int,
) -> tuple[Ints, int]:  # pragma: no cover
    """Counts text[start:stop], with a blank before it where that is asked for."""
    value = _BASIS
    if blank_before:
        value = (value ^ np.uint64(_BLANK)) * _PRIME
    for i in range(start, stop):
        value = (value ^ np.uint64(text[i])) * _PRIME
    value ^= value >> _HALF
    length = stop - start + blank_before
    mask = len(slots) - 1
    slot = int(np.int64(value & np.uint64(mask)))
    while slots[slot] != NOTHING:
        word = slots[slot]
        if hashes[word] == value:
            first = ends[word - 1] if word else 0
            if ends[word] - first == length:
                same = not blank_before or data[first] == _BLANK
                first += blank_before
                for i in range(stop - start):
                    if data[first + i] != text[start + i]:
                        same = False
                        break
                if same:
                    counts[word] += weight
                    return slots, num_words
        slot = (slot + 1) & mask
    slots[slot] = num_words
    first = ends[num_words - 1] if num_words else 0
    if blank_before:
        data[first] = _BLANK
    for i in range(stop - start):
        data[first + blank_before + i] = text[start + i]
    ends[num_words], hashes[num_words], counts[num_words] = first + length, value, weight
    num_words += 1
    if 2 * num_words > len(slots):
        slots = _larger(slots, hashes, num_words)
    return slots, num_words


@numba.njit(cache=True)
def _larger(slots: Ints, hashes: Keys, num_words: int) -> Ints:  # pragma: no cover
    """The same words in a table of four times the size."""
    larger = np.full(4 * len(slots), NOTHING, np.int32)
    mask = len(larger) - 1
    for word in range(num_words):
        slot = int(np.int64(hashes[word] & np.uint64(mask)))
        while larger[slot] != NOTHING:
            slot = (slot + 1) & mask
        larger[slot] = word
    return larger
