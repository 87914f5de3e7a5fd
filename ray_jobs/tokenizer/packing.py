"""Sequences packed of whole documents, which attention and loss keep apart.

Plain windows (`loader.TokenDataset`) cut almost every document in two and let a token look back into the documents
before its own. Here only documents of more than L tokens are cut, into pieces of L; all pieces are packed into as few
sequences of L as best-fit-decreasing finds (Ding et al. 2024, "Fewer Truncations Improve Language Modeling", section
2): the longest piece first, each into the fullest sequence that still takes it. A segment tree over the room that is
left finds that one in O(log L).

A document of n tokens, its end-of-text with them, takes n places: at each, the input is the token before the target,
and the first target's input is end-of-text, which begins a text wherever this system predicts one (in plain windows it
stands before every document, and evaluate scores documents so). So every token of every document is a target once an
epoch, and no target is of another document than its input's context.

The plan is a function of the documents' lengths and L, made shard by shard as the data are opened. Every rank holds it:
13 bytes a piece and 8 a sequence, 1.7 GB for 10^11 tokens in documents of 1,000. The pieces of a sequence are of one
shard, anywhere in it: read them from local files, for in an object store each is a request.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.loader import ShuffledOrder
from ray_jobs.tokenizer.streams import TokenStream

Longs: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

IGNORED = -100
"""Target of a place that holds no document: not scored (torch's own default)."""


@dataclass(frozen=True)
class PackedBatch:
    """C sequences of L places, int64 each."""

    inputs_CL: npt.NDArray[np.int64]
    targets_CL: npt.NDArray[np.int64]
    positions_CL: npt.NDArray[np.int64]
    """Place within the document or piece, from 0: a sequence's documents begin where it is 0. What is left over at the
    end counts as one more, whose targets are IGNORED."""

    def boundaries(self) -> npt.NDArray[np.int32]:
        """Where documents begin in the batch laid out flat, and its end: `cu_seqlens` of variable-length attention."""
        return np.append(np.flatnonzero(self.positions_CL.ravel() == 0), self.positions_CL.size).astype(np.int32)


@dataclass(frozen=True)
class Packing:
    """Pieces of documents, and the sequences that hold them."""

    starts: npt.NDArray[np.int64]
    """Place in the stream of each piece's first token, the pieces of a sequence one after another."""
    lengths: npt.NDArray[np.int32]
    begins: npt.NDArray[np.bool_]
    """Whether the piece is the first of its document."""
    bounds: npt.NDArray[np.int64]
    """Sequence s holds the pieces bounds[s] … bounds[s+1]-1."""

    @property
    def num_sequences(self) -> int:
        return len(self.bounds) - 1


def pack(lengths: npt.NDArray[np.int64], sequence_length: int, first: int = 0) -> Packing:
    """Packs documents of these lengths (from 1), which stand end to end from token `first` of the stream on."""
    documents = np.arange(len(lengths))
    num_pieces = -(-lengths // sequence_length)
    document = np.repeat(documents, num_pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    starts = first + (np.cumsum(lengths) - lengths)[document] + number * sequence_length
    piece_lengths = np.minimum(sequence_length, lengths[document] - number * sequence_length)
    sequences, num_sequences = best_fit_decreasing(piece_lengths, sequence_length)
    order = np.argsort(sequences, kind="stable")
    bounds = np.zeros(num_sequences + 1, dtype=np.int64)
    np.cumsum(np.bincount(sequences, minlength=num_sequences), out=bounds[1:])
    return Packing(starts[order], piece_lengths[order].astype(np.int32), number[order] == 0, bounds)


def best_fit_decreasing(lengths: npt.NDArray[np.int64], capacity: int) -> tuple[npt.NDArray[np.int64], int]:
    """The sequence of each piece, int64 [n], and how many sequences there are.

    Of equal pieces the first is placed first; of sequences with equal room, the one that came to it last is taken.
    """
    if len(lengths) and (lengths.min() < 1 or lengths.max() > capacity):
        raise ValueError(f"pieces are of 1 to {capacity} tokens, not {lengths.min()} to {lengths.max()}")
    order = np.argsort(-lengths, kind="stable")
    return _place(lengths.astype(np.int64), order, capacity)


@numba.njit(cache=True)
def _place(lengths: Longs, order: Longs, capacity: int) -> tuple[Longs, int]:  # pragma: no cover
    num_leaves = 1
    while num_leaves <= capacity:
        num_leaves *= 2
    # Leaf r: whether a sequence has room for exactly r more tokens. An inner node: whether one of its leaves has.
    tree = np.zeros(2 * num_leaves, dtype=np.bool_)
    # The sequences of equal room form a stack.
    top = np.full(capacity + 1, -1, dtype=np.int64)
    below = np.full(len(lengths), -1, dtype=np.int64)
    sequences = np.empty(len(lengths), dtype=np.int64)
    num_sequences = 0
    for piece in order:
        length = lengths[piece]
        room = _least_room(tree, num_leaves, length)
        if room < 0:
            sequence, room = num_sequences, capacity
            num_sequences += 1
        else:
            sequence = top[room]
            top[room] = below[sequence]
            if top[room] < 0:
                _mark(tree, num_leaves, room, False)
        sequences[piece] = sequence
        left = room - length
        if left:
            if top[left] < 0:
                _mark(tree, num_leaves, left, True)
            below[sequence] = top[left]
            top[left] = sequence
    return sequences, num_sequences


@numba.njit(cache=True)
def _least_room(tree: Flags, num_leaves: int, length: int) -> int:  # pragma: no cover
    """The smallest room from `length` on that a sequence has; -1 where none has."""
    node = length + num_leaves
    if tree[node]:
        return length
    while node > 1:
        if node % 2 == 0 and tree[node + 1]:
            node += 1
            while node < num_leaves:
                node = 2 * node if tree[2 * node] else 2 * node + 1
            return node - num_leaves
        node //= 2
    return -1


@numba.njit(cache=True)
def _mark(tree: Flags, num_leaves: int, room: int, stands: bool) -> None:  # pragma: no cover
    node = room + num_leaves
    tree[node] = stands
    while node > 1:
        node //= 2
        tree[node] = tree[2 * node] or tree[2 * node + 1]


class PackedDataset:
    """Packed sequences of a stream, globally shuffled: sample i is a function of (shards, L, seed, i).

    `documents` gives, shard by shard, the lengths of its documents. `len(dataset)` is the number of sequences of one
    epoch. Raises ValueError where the documents are not those of the stream, or there is none.
    """

    def __init__(
        self,
        stream: TokenStream,
        documents: Iterable[npt.NDArray[np.int64]],
        sequence_length: int,
        seed: int,
        end_of_text: int,
    ):
        self.stream, self.sequence_length, self.end_of_text = stream, sequence_length, end_of_text
        packed = []
        spans = itertools.pairwise(stream.bounds.tolist())
        for shard, (lengths, (first, last)) in enumerate(zip(documents, spans, strict=True)):
            if lengths.sum() != last - first:
                raise ValueError(
                    f"shard {shard} holds {last - first} tokens, its index names documents of {lengths.sum()}: "
                    "`headrace verify` says which of the two is damaged"
                )
            packed.append(pack(lengths, sequence_length, first))
        self.packing = joined(packed)
        if not self.packing.num_sequences:
            raise ValueError(f"{stream.num_shards} shards hold no document to pack: take more of the crawl")
        self.sequences = ShuffledOrder(self.packing.num_sequences, seed)
        """sequences(first, count): those that the samples first … first+count-1 show, int64 [count]."""

    def __len__(self) -> int:
        return self.packing.num_sequences

    @property
    def padding_share(self) -> float:
        """Of all places, those that hold no document."""
        return 1 - self.stream.num_tokens / (len(self) * self.sequence_length)

    def batch(self, first: int, count: int) -> PackedBatch:
        """The samples `first` … `first+count-1`; sample i is of epoch i // len(self)."""
        return self.read(self.sequences(first, count))

    def read(self, sequences: npt.NDArray[np.int64]) -> PackedBatch:
        """The given sequences in the given order, unshuffled."""
        packing, shape = self.packing, (len(sequences), self.sequence_length)
        firsts, ends = packing.bounds[sequences], packing.bounds[sequences + 1]
        pieces = np.concatenate([np.arange(0), *(np.arange(a, b) for a, b in zip(firsts, ends, strict=True))])
        starts, lengths = packing.starts[pieces], packing.lengths[pieces].astype(np.int64)
        # Each piece is read with the token before it, but for the stream's very first.
        tokens = np.empty(int((lengths + 1).sum()), dtype=np.int64)
        places = np.cumsum(lengths + 1) - (lengths + 1)
        before = (starts > 0).astype(np.int64)
        self.stream.read(starts - before, lengths + before, tokens, places + 1 - before)
        tokens[places[packing.begins[pieces]]] = self.end_of_text

        inputs = np.full(shape, self.end_of_text, dtype=np.int64)
        targets = np.full(shape, IGNORED, dtype=np.int64)
        positions = np.tile(np.arange(self.sequence_length), (len(sequences), 1))
        rows = np.repeat(np.arange(len(sequences)), ends - firsts).tolist()
        row_before, at = -1, 0
        for row, place, length in zip(rows, places.tolist(), lengths.tolist(), strict=True):
            at = at if row == row_before else 0
            inputs[row, at : at + length] = tokens[place : place + length]
            targets[row, at : at + length] = tokens[place + 1 : place + 1 + length]
            row_before, at = row, at + length
            # What follows begins anew: the next piece, or what is left over.
            positions[row, at:] = np.arange(self.sequence_length - at)
        return PackedBatch(inputs, targets, positions)


def joined(packings: list[Packing]) -> Packing:
    """The sequences of all, in their order."""
    if not packings:
        return pack(np.empty(0, dtype=np.int64), 1)
    num_pieces = np.cumsum([0, *(len(packing.starts) for packing in packings)])
    bounds = [packing.bounds[1:] + before for packing, before in zip(packings, num_pieces, strict=False)]
    return Packing(
        np.concatenate([packing.starts for packing in packings]),
        np.concatenate([packing.lengths for packing in packings]),
        np.concatenate([packing.begins for packing in packings]),
        np.concatenate([np.zeros(1, dtype=np.int64), *bounds]),
    )
