"""N-gram counts of normalised text: the sorted runs that shards leave, and their sum.

A **run** holds the distinct words of a shard, sorted by their bytes, and its distinct n-grams of the highest order as
rows of numbers of these words, sorted by the last word, then the one before, and so on. Numbers 0, 1 and 2 are <unk>,
<s> and </s>. Each word of a text, and each sentence's end, is the last word of one n-gram; before a sentence's first
word stands <s>, as often as the order asks for (Heafield et al. 2013, section 3.1).

Words are told apart by 64-bit hashes: among ten million words two share one with a probability of 3e-6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.quality.hashing import hash_of, step, stirred
from ray_jobs.quality.sentences import NEWLINE, SPACE, Bytes

UNKNOWN, BEGIN, END = 0, 1, 2
SPECIAL = ("<unk>", "<s>", "</s>")
FEW_NGRAMS = 4_000_000
"""Fewer than these are not worth adding up before there are more."""


@dataclass(frozen=True)
class Run:
    words: pa.Array
    """large_binary [v]: the words numbered 3 and up, sorted. None is one of SPECIAL, which normalised text cannot hold.
    """
    ngrams: npt.NDArray[np.uint32]
    """[n, order]"""
    counts: npt.NDArray[np.int64]
    """[n]"""


def count_run(normalised: Bytes, order: int) -> Run:
    """The run of sentences as `sentences.normalise` gives them."""
    num_tokens, num_sentences = _num_tokens(normalised)
    hashes = np.empty(num_tokens, dtype=np.uint64)
    ends = np.empty(num_tokens, dtype=np.int64)
    _hash_words(normalised, hashes, ends)
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    lengths_before = np.where(first > 0, ends[first - 1] + 1, 0)
    words = pa.array(
        [normalised[a:b].tobytes() for a, b in zip(lengths_before.tolist(), ends[first].tolist(), strict=True)],
        pa.large_binary(),
    )
    by_bytes = pc.sort_indices(words).to_numpy()
    number = np.empty(len(distinct), dtype=np.uint32)
    number[by_bytes] = np.arange(len(SPECIAL), len(SPECIAL) + len(distinct), dtype=np.uint32)

    stream = np.empty(num_tokens + num_sentences, dtype=np.uint32)
    position = np.empty(len(stream), dtype=np.int32)
    _lay_out(number[inverse], normalised[ends], stream, position)
    columns = np.full((order, len(stream)), BEGIN, dtype=np.uint32)
    for back in range(order):
        inside = np.flatnonzero(position >= back)
        columns[order - 1 - back, inside] = stream[inside - back]
    ngrams, counts = _summed(columns, np.ones(len(stream), dtype=np.int64), len(distinct) + len(SPECIAL))
    return Run(words.take(pa.array(by_bytes)), ngrams, counts)


def add(runs: Sequence[Run], order: int) -> Run:
    """The run that all their texts together have."""
    empty = pa.array([], pa.large_binary())
    words = pc.unique(pa.concat_arrays([empty, *(run.words for run in runs)]))
    words = words.take(pc.sort_indices(words))
    columns, counts = [], []
    for run in runs:
        number = np.arange(len(SPECIAL) + len(run.words), dtype=np.uint32)
        number[len(SPECIAL) :] += pc.index_in(run.words, words).to_numpy().astype(np.uint32) - np.arange(
            len(run.words), dtype=np.uint32
        )
        columns.append(number[run.ngrams.T])
        counts.append(run.counts)
    together = np.concatenate([np.empty((order, 0), np.uint32), *columns], axis=1)
    ngrams, summed = _summed(together, np.concatenate([np.empty(0, np.int64), *counts]), len(words) + len(SPECIAL))
    return Run(words, ngrams, summed)


def merged(runs: Iterable[Run], order: int) -> Run:
    """The sum of any number of runs, of which no more are held at once than three times the n-grams of their sum, and
    FEW_NGRAMS."""
    held: list[Run] = []
    num_merged = 0
    for run in runs:
        held.append(run)
        if sum(len(one.counts) for one in held) > max(3 * num_merged, FEW_NGRAMS):
            held = [add(held, order)]
            num_merged = len(held[0].counts)
    return add(held, order)


def _summed(
    columns: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64], num_words: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Distinct n-grams, sorted from the last word to the first, with the sum of their counts."""
    bits = int(num_words).bit_length()
    key, width = columns[-1].astype(np.uint64), bits
    for column in columns[-2::-1]:
        if width + bits > 64:
            # Places among the distinct keys keep the order and take fewer bits.
            distinct, places = np.unique(key, return_inverse=True)
            key, width = places.astype(np.uint64), len(distinct).bit_length()
        key = key << np.uint64(bits) | column
        width += bits
    order = np.argsort(key, kind="stable")
    key = key[order]
    firsts = np.flatnonzero(np.concatenate([np.ones(min(len(key), 1), bool), key[1:] != key[:-1]]))
    summed = np.add.reduceat(counts[order], firsts) if len(firsts) else np.empty(0, np.int64)
    return np.ascontiguousarray(columns[:, order[firsts]].T), summed


def to_tables(run: Run) -> tuple[pa.Table, pa.Table]:
    """(words, n-grams), to be stored."""
    columns = {f"word_{place}": run.ngrams[:, place] for place in range(run.ngrams.shape[1])}
    return pa.table({"word": run.words}), pa.table({**columns, "count": run.counts})


def from_tables(words: pa.Table, ngrams: pa.Table) -> Run:
    columns = [ngrams[name].to_numpy() for name in ngrams.column_names[:-1]]
    return Run(words["word"].combine_chunks(), np.stack(columns, axis=1), ngrams["count"].to_numpy())


@numba.njit(cache=True)
def _num_tokens(normalised: Bytes) -> tuple[int, int]:  # pragma: no cover
    """(words, sentences)"""
    num_words, num_sentences = 0, 0
    for byte in normalised:
        num_words += byte in (SPACE, NEWLINE)
        num_sentences += byte == NEWLINE
    return num_words, num_sentences


@numba.njit(cache=True)
def _hash_words(
    normalised: Bytes, hashes: npt.NDArray[np.uint64], ends: npt.NDArray[np.int64]
) -> None:  # pragma: no cover
    """Each word's hash, and where it ends."""
    word = 0
    value = hash_of()
    for i in range(len(normalised)):
        byte = normalised[i]
        if byte in (SPACE, NEWLINE):
            hashes[word] = stirred(value)
            ends[word] = i
            word += 1
            value = hash_of()
        else:
            value = step(value, byte)


@numba.njit(cache=True)
def _lay_out(
    words: npt.NDArray[np.uint32], after: Bytes, stream: npt.NDArray[np.uint32], position: npt.NDArray[np.int32]
) -> None:  # pragma: no cover
    """Words with a sentence's end after each last one, and each one's place in its sentence."""
    end, place = 0, 0
    for i in range(len(words)):
        stream[end], position[end] = words[i], place
        end, place = end + 1, place + 1
        if after[i] == NEWLINE:
            stream[end], position[end] = END, place
            end, place = end + 1, 0
