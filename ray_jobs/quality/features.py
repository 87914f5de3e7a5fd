"""From text to rows of a linear classifier: words, word n-grams and character n-grams as fastText makes them.

A text is cut at ASCII white space and NUL; the word `</s>` is its end, and stands there if it was not written. A word
of the vocabulary is the row of its number. Word n-grams (n from 2 on), and the character n-grams of each word between
`<` and `>`, are hashed into `num_buckets` rows behind those of the vocabulary; unknown words are seen only in these.
Words that begin with `__label__` are labels and are passed over.

Sources: Joulin et al., "Bag of Tricks for Efficient Text Classification" (2016, arXiv:1607.01759), section 2, and
Bojanowski et al. (2016, arXiv:1607.04606), section 3.2, for character n-grams; the hashes are those of fastText 0.9
(FNV-1a with bytes taken as signed, and h·116049371 + h' over the words), held equal by tests to what it computes.
"""

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.quality.sentences import Bytes, Offsets

Rows: TypeAlias = npt.NDArray[np.int32]

END = b"</s>"
LABEL_PREFIX = b"__label__"

_FNV_BASIS, _FNV_PRIME = np.uint64(2166136261), np.uint64(16777619)
_NGRAM_STEP = np.uint64(116049371)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_SIGN = np.uint64(0x80000000)
# fastText's hash takes a byte as signed: from 128 on its upper 24 bits are ones.
_SIGNED = np.array([byte if byte < 128 else byte | 0xFFFFFF00 for byte in range(256)], dtype=np.uint64)
_IS_SPACE = np.zeros(256, dtype=np.bool_)
_IS_SPACE[np.frombuffer(b" \t\n\v\f\r\0", dtype=np.uint8)] = True
_AS_IS = np.arange(256, dtype=np.uint8)
_LOWERED = _AS_IS.copy()
_LOWERED[ord("A") : ord("Z") + 1] += 32
_END = np.frombuffer(END, dtype=np.uint8)
_LABEL = np.frombuffer(LABEL_PREFIX, dtype=np.uint8)


@dataclass(frozen=True)
class Features:
    """Which rows a text has."""

    word_ngrams: int = 1
    """Words of the longest n-gram; 1 takes words alone."""
    num_buckets: int = 0
    """Rows that n-grams are hashed into."""
    min_characters: int = 0
    max_characters: int = 0
    """Length of character n-grams; 0 takes none."""
    lowercase: bool = False
    """A–Z are taken as a–z."""

    @property
    def hashed(self) -> bool:
        return self.word_ngrams > 1 or self.max_characters > 0


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their rows, found by their hash."""

    data: Bytes
    """All words end to end."""
    offsets: Offsets
    """[num_words + 1]"""
    table: npt.NDArray[np.int32]
    """Open addressing by fastText's hash: the word's number, or -1. A power of two, at most half full."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, data: Bytes, offsets: Offsets) -> "Vocabulary":
        size = 1 << max(4, int(2 * len(offsets)).bit_length())
        table = np.full(size, -1, dtype=np.int32)
        _fill_table(data, offsets, table)
        return cls(data, offsets, table)

    @classmethod
    def of_words(cls, words: list[bytes]) -> "Vocabulary":
        offsets = np.zeros(len(words) + 1, dtype=np.int64)
        np.cumsum([len(word) for word in words], out=offsets[1:])
        return cls.of(np.frombuffer(b"".join(words), dtype=np.uint8), offsets)

    def words(self) -> list[bytes]:
        data, ends = self.data.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in itertools.pairwise(ends)]


def rows_of(data: Bytes, offsets: Offsets, vocabulary: Vocabulary, features: Features) -> tuple[Rows, Offsets]:
    """The rows of each of n texts, all end to end, and where each text's begin and end (int64 [n + 1])."""
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    settings = settings_of(features)
    table = mapped_bytes(features)
    pieces = []
    for number in range(len(offsets) - 1):
        out = np.empty(most_rows(int(offsets[number + 1] - offsets[number]), features), dtype=np.int32)
        hashes = np.empty(most_words(int(offsets[number + 1] - offsets[number])), dtype=np.uint64)
        found = text_rows(
            data,
            offsets[number],
            offsets[number + 1],
            table,
            vocabulary.data,
            vocabulary.offsets,
            vocabulary.table,
            settings,
            hashes,
            out,
        )
        pieces.append(out[:found].copy())
        out_offsets[number + 1] = out_offsets[number] + found
    return (np.concatenate(pieces) if pieces else np.empty(0, np.int32)), out_offsets


def most_words(num_bytes: int) -> int:
    """No text of so many bytes has more words, its end among them."""
    return num_bytes // 2 + 2


def most_rows(num_bytes: int, features: Features) -> int:
    """No text of so many bytes has more rows."""
    words = most_words(num_bytes)
    # A character n-gram begins at each byte of a word and at its `<`.
    per_length = num_bytes + 2 * words if features.max_characters else 0
    lengths = max(0, features.max_characters - features.min_characters + 1)
    return words * features.word_ngrams + per_length * lengths


def mapped_bytes(features: Features) -> Bytes:
    """What each byte is taken for: uint8 [256]."""
    return _LOWERED if features.lowercase else _AS_IS


def settings_of(features: Features) -> npt.NDArray[np.int64]:
    """What the compiled loops read of `features`."""
    return np.array(
        [features.word_ngrams, features.num_buckets, features.min_characters, features.max_characters], dtype=np.int64
    )


def count_words(data: Bytes, offsets: Offsets, lowercase: bool) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """The distinct words of n texts and how often each occurs: `</s>`, which ends each text, then the most frequent
    first and those equal by first occurrence."""
    mapped = _LOWERED if lowercase else _AS_IS
    size = 1 << 16
    while True:
        keys, counts = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int64)
        places = np.empty((size, 2), dtype=np.int64)
        if _count_words(data, offsets, mapped, keys, counts, places):
            break
        size *= 4
    found = np.flatnonzero(counts)
    order = found[np.lexsort((places[found, 0], -counts[found]))]
    words = [mapped[data[start:end]].tobytes() for start, end in places[order].tolist()]
    return [END, *words], np.concatenate(([len(offsets) - 1], counts[order])).astype(np.int64)


@numba.njit(cache=True)
def fnv(data: Bytes, start: int, end: int, table: Bytes) -> np.uint64:  # pragma: no cover
    """fastText's 32-bit hash of data[start:end], its bytes mapped by `table`."""
    value = _FNV_BASIS
    for i in range(start, end):
        value = ((value ^ _SIGNED[table[data[i]]]) * _FNV_PRIME) & _LOW
    return value


@numba.njit(cache=True)
def _fill_table(data: Bytes, offsets: Offsets, table: npt.NDArray[np.int32]) -> None:  # pragma: no cover
    mask = np.uint64(len(table) - 1)
    for number in range(len(offsets) - 1):
        place = fnv(data, offsets[number], offsets[number + 1], _AS_IS) & mask
        while table[place] >= 0:
            place = (place + np.uint64(1)) & mask
        table[place] = number


@numba.njit(cache=True)
def _find(
    data: Bytes,
    start: int,
    end: int,
    mapped: Bytes,
    value: np.uint64,
    words: Bytes,
    word_offsets: Offsets,
    table: npt.NDArray[np.int32],
) -> int:  # pragma: no cover
    """The number of the word data[start:end], whose hash is `value`, or -1."""
    mask = np.uint64(len(table) - 1)
    place = value & mask
    while True:
        number = table[place]
        if number < 0:
            return -1
        first = word_offsets[number]
        if word_offsets[number + 1] - first == end - start:
            same = True
            for i in range(end - start):
                if words[first + i] != mapped[data[start + i]]:
                    same = False
                    break
            if same:
                return int(number)
        place = (place + np.uint64(1)) & mask


@numba.njit(cache=True)
def _begins(data: Bytes, start: int, end: int, mapped: Bytes, prefix: Bytes) -> bool:  # pragma: no cover
    if end - start < len(prefix):
        return False
    for i in range(len(prefix)):  # noqa: SIM110 - compiled
        if mapped[data[start + i]] != prefix[i]:
            return False
    return True


@numba.njit(cache=True)
def _count_words(
    data: Bytes,
    offsets: Offsets,
    mapped: Bytes,
    keys: npt.NDArray[np.uint64],
    counts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
) -> bool:  # pragma: no cover
    """Counts the words of all texts, labels and ends left out, in an open table by a 64-bit hash, with the place where
    each stands first. False where the table would be more than half full."""
    mask = np.uint64(len(keys) - 1)
    distinct = 0
    for document in range(len(offsets) - 1):
        i, end = offsets[document], offsets[document + 1]
        while i < end:
            if _IS_SPACE[data[i]]:
                i += 1
                continue
            start = i
            # FNV-1a of 64 bits: two distinct words of the sample do not share one.
            key = np.uint64(14695981039346656037)
            while i < end and not _IS_SPACE[data[i]]:
                key = (key ^ np.uint64(mapped[data[i]])) * np.uint64(1099511628211)
                i += 1
            if i - start == len(_END) and _begins(data, start, i, mapped, _END):
                break
            if _begins(data, start, i, mapped, _LABEL):
                continue
            place = (key ^ (key >> np.uint64(32))) & mask
            while counts[place] and keys[place] != key:
                place = (place + np.uint64(1)) & mask
            if not counts[place]:
                distinct += 1
                if 2 * distinct > len(keys):
                    return False
                keys[place] = key
                places[place, 0] = start
                places[place, 1] = i
            counts[place] += 1
    return True


@numba.njit(cache=True)
def _character_rows(
    data: Bytes,
    start: int,
    end: int,
    mapped: Bytes,
    settings: npt.NDArray[np.int64],
    first_row: int,
    out: Rows,
    at: int,
) -> int:  # pragma: no cover
    """The rows of the character n-grams of `<` + data[start:end] + `>`, written from out[at] on; the place behind."""
    buckets = np.uint64(settings[1])
    least, most = settings[2], settings[3]
    size = end - start + 2
    for i in range(size):
        byte = 60 if i == 0 else (62 if i == size - 1 else mapped[data[start + i - 1]])
        if (byte & 0xC0) == 0x80:
            continue  # within a character
        value = _FNV_BASIS
        j = i
        n = 1
        while j < size and n <= most:
            first = True
            while True:
                byte = 60 if j == 0 else (62 if j == size - 1 else mapped[data[start + j - 1]])
                if not first and (byte & 0xC0) != 0x80:
                    break
                value = ((value ^ _SIGNED[byte]) * _FNV_PRIME) & _LOW
                first = False
                j += 1
                if j == size:
                    break
            if n >= least and not (n == 1 and (i == 0 or j == size)):
                out[at] = first_row + np.int64(value % buckets)
                at += 1
            n += 1
    return at


@numba.njit(cache=True)
def text_rows(
    data: Bytes,
    start: int,
    end: int,
    mapped: Bytes,
    words: Bytes,
    word_offsets: Offsets,
    table: npt.NDArray[np.int32],
    settings: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    out: Rows,
) -> int:  # pragma: no cover
    """The rows of the text data[start:end], written into `out`; their number. `hashes` is scratch."""
    num_words_known = len(word_offsets) - 1
    ngrams, buckets = settings[0], np.uint64(settings[1])
    at = 0
    num_words = 0
    i = start
    ended = False
    while not ended:
        while i < end and _IS_SPACE[data[i]]:
            i += 1
        if i >= end:
            value = fnv(_END, 0, len(_END), _AS_IS)
            number = _find(_END, 0, len(_END), _AS_IS, value, words, word_offsets, table)
            ended = True
            if number >= 0:
                out[at] = number
                at += 1
        else:
            first = i
            value = _FNV_BASIS
            while i < end and not _IS_SPACE[data[i]]:
                value = ((value ^ _SIGNED[mapped[data[i]]]) * _FNV_PRIME) & _LOW
                i += 1
            if i - first >= len(_LABEL) and _begins(data, first, i, mapped, _LABEL):
                continue
            ended = i - first == len(_END) and _begins(data, first, i, mapped, _END)
            number = _find(data, first, i, mapped, value, words, word_offsets, table)
            if number >= 0:
                out[at] = number
                at += 1
            if settings[3] > 0 and not ended:
                at = _character_rows(data, first, i, mapped, settings, num_words_known, out, at)
        # Taken as a signed 32-bit number, as fastText keeps it.
        hashes[num_words] = value | _HIGH if value & _SIGN else value
        num_words += 1
    if ngrams > 1:
        for first in range(num_words):
            value = hashes[first]
            for second in range(first + 1, min(first + ngrams, num_words)):
                value = value * _NGRAM_STEP + hashes[second]
                out[at] = num_words_known + np.int64(value % buckets)
                at += 1
    return at
