"""A language model read from ARPA, and documents scored by it: compiled loops over bytes and a table of hashes.

Each order's n-grams stand in an open-addressing table, at most two thirds full, by a 64-bit hash of their words; an
entry takes 16 bytes. Among 2^27 n-grams a wrong one is found for one that is not there with a probability of 1e-11 a
look-up (KenLM's probing models take the same chance). The hash of an n-gram comes from that of its suffix and one word
more, so that the longest known n-gram is found from its last word backwards.

The probability of a word is that of the longest n-gram which ends in it, plus the back-off weights of the longer
contexts (all as log10): Katz's form, into which an interpolated model is written. Sentences begin after <s> and end
with </s>, which counts as a word.
"""

import gzip
import re
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from configs.quality import MAX_ORDER
from ray_jobs.quality.hashing import extended, hash_of, step, stirred
from ray_jobs.quality.sentences import NEWLINE, SPACE, Bytes, Offsets

ENTRY = np.dtype([("key", np.uint64), ("logprob", np.float32), ("backoff", np.float32)])
"""A free one has the key 0, which no hash is."""
_COUNTS = re.compile(rb"^ngram ([0-9]+)=([0-9]+)\n", re.MULTILINE)
_HEADER_BYTES = 4096
BLOCK_WORDS = 4096
"""Words that are looked up at once: what is held of them stays in the processor's cache, however long the document."""
_TAB = ord("\t")


@dataclass(frozen=True)
class LanguageModel:
    entries: npt.NDArray[np.void]
    """ENTRY: the tables of all orders, end to end."""
    starts: Offsets
    """[order + 1]: where each order's table begins, a power of two of entries."""
    unknown: float
    """log10 p of <unk>."""

    @property
    def order(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class Scores:
    """Of n documents."""

    logprob: npt.NDArray[np.float64]
    """[n]: sum of log10 p over all words and sentences' ends."""
    num_words: npt.NDArray[np.int64]
    """[n]: those words and ends."""
    num_unknown: npt.NDArray[np.int64]
    """[n]: words that the model does not know."""

    @property
    def perplexity(self) -> npt.NDArray[np.float32]:
        """A word; NaN for a document without words."""
        with np.errstate(invalid="ignore"):
            return (10 ** (-self.logprob / np.where(self.num_words, self.num_words, np.nan))).astype(np.float32)


def read_arpa(compressed: bytes, name: str = "the model") -> LanguageModel:
    """The model of a gzipped ARPA file, which is held in memory while it is read.

    Raises:
        ValueError: it is no ARPA file, is longer than MAX_ORDER, or holds an n-gram without its suffix (some programs
            prune so).
    """
    data = gzip.decompress(compressed)
    sizes = [int(size) for _, size in _COUNTS.findall(data[:_HEADER_BYTES])]
    if not data.startswith(b"\\data\\\n") or not 1 <= len(sizes) <= MAX_ORDER:
        raise ValueError(f"{name} is no ARPA file of order 1 to {MAX_ORDER}: give what lmplz or ngram-lm writes")
    capacities = [1 << (3 * size // 2).bit_length() for size in sizes]
    starts = np.concatenate([[0], np.cumsum(capacities)]).astype(np.int64)
    entries = np.zeros(int(starts[-1]), dtype=ENTRY)
    view = np.frombuffer(data, dtype=np.uint8)
    at = 0
    for order, size in enumerate(sizes, start=1):
        title = b"\n\\%d-grams:\n" % order
        section = data.find(title, max(0, at - 1))
        if section < 0:
            raise ValueError(f"{name} has no section of {order}-grams: it is cut off, or not ARPA")
        read, at = _read_section(view, section + len(title), size, order, entries, starts)
        if read < size:
            line = data[at : data.find(b"\n", at)][:80].decode(errors="replace")
            raise ValueError(f"{name}: {order}-gram {read + 1} of {size} cannot be read, or has no suffix: {line!r}")
    unknown = _logprob_of(np.frombuffer(b"<unk>", dtype=np.uint8), entries, starts)
    if np.isnan(unknown):
        raise ValueError(f"{name} has no <unk>: train it with one, else it has no word for what it does not know")
    return LanguageModel(entries, starts, float(unknown))


def score(model: LanguageModel, normalised: Bytes, offsets: Offsets) -> Scores:
    """Scores of documents as `sentences.normalise` gives them."""
    num_documents = len(offsets) - 1
    logprob = np.empty(num_documents, dtype=np.float64)
    num_words, num_unknown = np.empty((2, num_documents), dtype=np.int64)
    _score(normalised, offsets, model.entries, model.starts, np.float32(model.unknown), logprob, num_words, num_unknown)
    return Scores(logprob, num_words, num_unknown)


@numba.njit(cache=True, inline="always")
def _place(key: np.uint64, order: int, entries: npt.NDArray[np.void], starts: Offsets) -> int:  # pragma: no cover
    """Where the table of that order has the key, or the free entry where it would stand."""
    start = starts[order - 1]
    mask = np.uint64(starts[order] - start - 1)
    # The hashes' lowest bit is always set.
    slot = (key >> np.uint64(1)) & mask
    while True:
        found = entries[start + np.int64(slot)]["key"]
        if found == key or found == 0:
            return start + np.int64(slot)
        slot = (slot + np.uint64(1)) & mask


@numba.njit(cache=True)
def _logprob_of(word: Bytes, entries: npt.NDArray[np.void], starts: Offsets) -> float:  # pragma: no cover
    value = hash_of()
    for byte in word:
        value = step(value, byte)
    entry = entries[_place(stirred(value), 1, entries, starts)]
    return entry["logprob"] if entry["key"] != 0 else np.nan


@numba.njit(cache=True)
def _read_number(data: Bytes, at: int) -> tuple[float, int]:  # pragma: no cover
    """(number, its end); an end that is `at` where there is none."""
    i = at
    negative = i < len(data) and data[i] == 45
    i += negative
    digits, value, scale = 0, 0.0, 0
    point = False
    while i < len(data) and (48 <= data[i] <= 57 or (data[i] == 46 and not point)):
        if data[i] == 46:
            point = True
        else:
            value = value * 10 + (data[i] - 48)
            digits += 1
            scale -= point
        i += 1
    if digits == 0:
        return 0.0, at
    if i + 1 < len(data) and (data[i] == 101 or data[i] == 69):
        i += 1
        minus = data[i] == 45
        i += minus or data[i] == 43
        exponent = 0
        while i < len(data) and 48 <= data[i] <= 57:
            exponent = exponent * 10 + (data[i] - 48)
            i += 1
        scale += -exponent if minus else exponent
    value *= 10.0**scale
    return -value if negative else value, i


@numba.njit(cache=True)
def _read_section(
    data: Bytes, at: int, size: int, order: int, entries: npt.NDArray[np.void], starts: Offsets
) -> tuple[int, int]:  # pragma: no cover
    """Reads so many lines into the order's table. Returns how many it could read, and where it stopped."""
    words = np.empty(order, dtype=np.uint64)
    for line in range(size):
        begin = at
        logprob, i = _read_number(data, at)
        if i == at or i >= len(data) or data[i] != _TAB:
            return line, begin
        i += 1
        for word in range(order):
            value = hash_of()
            first = i
            while i < len(data) and data[i] != SPACE and data[i] != _TAB and data[i] != NEWLINE:
                value = step(value, data[i])
                i += 1
            # A space stands after all words but the last.
            if i == first or i >= len(data) or (data[i] == SPACE) != (word + 1 < order):
                return line, begin
            words[word] = stirred(value)
            i += word + 1 < order
        backoff = 0.0
        if data[i] == _TAB:
            backoff, end = _read_number(data, i + 1)
            if end == i + 1:
                return line, begin
            i = end
        if i >= len(data) or data[i] != NEWLINE:
            return line, begin
        key = words[order - 1]
        for shorter in range(1, order):
            if shorter == order - 1 and entries[_place(key, shorter, entries, starts)]["key"] == 0:
                return line, begin
            key = extended(key, words[order - 1 - shorter])
        place = _place(key, order, entries, starts)
        entries[place]["key"] = key
        entries[place]["logprob"] = logprob
        entries[place]["backoff"] = backoff
        at = i + 1
    return size, at


@numba.njit(cache=True)
def _score(
    data: Bytes,
    offsets: Offsets,
    entries: npt.NDArray[np.void],
    starts: Offsets,
    unknown: np.float32,
    logprob: npt.NDArray[np.float64],
    num_words: npt.NDArray[np.int64],
    num_unknown: npt.NDArray[np.int64],
) -> None:  # pragma: no cover
    order = len(starts) - 1
    room = BLOCK_WORDS + order
    words, keys = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    position, matched = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    best = np.empty(room, dtype=np.float32)
    backoffs = np.empty((order, room), dtype=np.float32)
    for document in range(len(offsets) - 1):
        i, stop = offsets[document], offsets[document + 1]
        total, scored, unknowns = 0.0, 0, 0
        # The words that end the block before come again, as a context.
        again, place = 0, 0
        while i < stop:
            i, place, length = _hash_words(data, i, stop, words, position, again, place)
            _look_up(words, position, length, entries, starts, unknown, keys, matched, best, backoffs)
            for word in range(length):
                if word < again or position[word] == 0:
                    continue  # <s> is given
                total += best[word]
                for context in range(max(matched[word], 1), min(position[word], order - 1) + 1):
                    total += backoffs[context - 1, word - 1]
                scored += 1
                unknowns += matched[word] == 0
            again = min(order - 1, length)
            for word in range(again):
                words[word] = words[length - again + word]
                position[word] = min(word, position[length - again + word])
        logprob[document] = total
        num_words[document] = scored
        num_unknown[document] = unknowns


@numba.njit(cache=True, inline="always")
def _look_up(
    words: npt.NDArray[np.uint64],
    position: npt.NDArray[np.int64],
    length: int,
    entries: npt.NDArray[np.void],
    starts: Offsets,
    unknown: np.float32,
    keys: npt.NDArray[np.uint64],
    matched: npt.NDArray[np.int64],
    best: npt.NDArray[np.float32],
    backoffs: npt.NDArray[np.float32],
) -> None:  # pragma: no cover
    """For each word: the length of the longest known n-gram that ends in it, its log10 p, and the back-off weights of
    all that end in it."""
    for word in range(length):
        keys[word] = words[word]
        matched[word] = 0
        best[word] = unknown
    # One order after the other: the table is read at many places at once, which hides most of the time to memory.
    for size in range(1, len(starts)):
        for word in range(length):
            backoffs[size - 1, word] = 0
            # What has no shorter match has no longer one.
            if matched[word] != size - 1 or position[word] < size - 1:
                continue
            if size > 1:
                keys[word] = extended(keys[word], words[word - size + 1])
            entry = entries[_place(keys[word], size, entries, starts)]
            if entry["key"] != 0:
                matched[word] = size
                best[word] = entry["logprob"]
                backoffs[size - 1, word] = entry["backoff"]


@numba.njit(cache=True, inline="always")
def _hash_words(
    data: Bytes,
    i: int,
    stop: int,
    words: npt.NDArray[np.uint64],
    position: npt.NDArray[np.int64],
    length: int,
    place: int,
) -> tuple[int, int, int]:  # pragma: no cover
    """Hashes of <s>, the words and </s> of the sentences from i on, and their places in these, until a block is full.

    Returns where it stopped in the text and in the sentence, and how many hashes there are with the `length` before.
    """
    begin = stirred(step(step(step(hash_of(), np.uint8(60)), np.uint8(115)), np.uint8(62)))
    end = stirred(step(step(step(step(hash_of(), np.uint8(60)), np.uint8(47)), np.uint8(115)), np.uint8(62)))
    value = hash_of()
    # A word may bring <s> and </s>.
    while i < stop and length + 3 <= BLOCK_WORDS:
        byte = data[i]
        i += 1
        if byte != SPACE and byte != NEWLINE:
            value = step(value, byte)
            continue
        if place == 0:
            words[length], position[length] = begin, 0
            length, place = length + 1, 1
        words[length], position[length] = stirred(value), place
        length, place = length + 1, place + 1
        value = hash_of()
        if byte == NEWLINE:
            words[length], position[length] = end, place
            length, place = length + 1, 0
    return i, place, length
