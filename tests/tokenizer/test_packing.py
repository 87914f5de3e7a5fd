"""Best-fit packing: against a plain search, against its bounds, and what a packed batch holds."""

import itertools
import pickle
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.tokenizer.packing import IGNORED, PackedBatch, PackedDataset, best_fit_decreasing, pack
from ray_jobs.tokenizer.streams import LocalStream

END = 0


def plain_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """By looking through all sequences for every piece; the one that came to its room last first."""
    rooms: list[tuple[int, int]] = []  # (room, sequence), the newest last
    placed, num_sequences = [-1] * len(lengths), 0
    for piece in sorted(range(len(lengths)), key=lambda piece: (-lengths[piece], piece)):
        fitting = [entry for entry in reversed(rooms) if entry[0] >= lengths[piece]]
        if fitting:
            entry = min(fitting, key=lambda entry: entry[0])
            rooms.remove(entry)
        else:
            entry = (capacity, num_sequences)
            num_sequences += 1
        placed[piece] = entry[1]
        if entry[0] > lengths[piece]:
            rooms.append((entry[0] - lengths[piece], entry[1]))
    return placed


@given(st.integers(1, 40).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
def test_every_piece_goes_where_a_plain_search_puts_it(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    sequences, num_sequences = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    assert sequences.tolist() == plain_best_fit(lengths, capacity)
    assert num_sequences == len(set(sequences.tolist()))
    filled = np.sort(np.bincount(sequences, weights=lengths, minlength=num_sequences))
    assert (filled <= capacity).all()
    # No two could be one, or the later would not have been begun; so fewer than twice the optimum.
    assert num_sequences < 2 or filled[:2].sum() > capacity


def test_pieces_longer_than_a_sequence_are_refused() -> None:
    with pytest.raises(ValueError, match="pieces are of 1 to 4 tokens, not 2 to 5"):
        best_fit_decreasing(np.array([2, 5]), 4)


def test_a_million_documents_are_packed_in_seconds_with_hardly_any_room_left() -> None:
    # Lengths as a crawl has them: log-normal, median 500.
    lengths = np.exp(np.random.default_rng(1).normal(6.2, 1.1, 1_000_000)).astype(np.int64) + 2
    pack(lengths[:1000], 2048)  # compiled beforehand
    began = time.process_time()
    packing = pack(lengths, 2048)
    seconds = time.process_time() - began
    share = 1 - lengths.sum() / (packing.num_sequences * 2048)
    print(f"\n{seconds:.2f} s, {packing.num_sequences} sequences, padding {share:.2e}")
    assert share < 0.001 and seconds < 10


def test_only_documents_longer_than_a_sequence_are_cut() -> None:
    lengths = np.array([3, 10, 25, 1, 10, 30])
    packing = pack(lengths, 10, first=100)
    ends = 100 + np.cumsum(lengths)
    spans = sorted(zip(packing.starts.tolist(), (packing.starts + packing.lengths).tolist(), strict=True))
    assert spans == [
        (100, 103),
        (103, 113),
        (113, 123),
        (123, 133),
        (133, 138),
        (138, 139),
        (139, 149),
        (149, 159),
        (159, 169),
        (169, 179),
    ]
    assert sorted(packing.starts[packing.begins].tolist()) == (ends - lengths).tolist()
    assert packing.num_sequences == 8  # 5 + 3 + 1 share one


def corpus(folder: Path, shards: list[list[int]], dtype: str = "uint16") -> tuple[LocalStream, list[list[int]]]:
    """Documents of these lengths: each its own numbers from 1 on, and END."""
    paths, documents, number = [], [], 1
    for shard, lengths in enumerate(shards):
        tokens: list[int] = []
        for length in lengths:
            documents.append([*range(number, number + length - 1), END])
            tokens += documents[-1]
            number += length
        paths.append(folder / f"{shard}.bin")
        paths[-1].write_bytes(np.array(tokens, dtype=dtype).tobytes())
    return LocalStream(paths, dtype), documents


def packed(folder: Path, shards: list[list[int]], length: int, seed: int = 1, dtype: str = "uint16") -> PackedDataset:
    stream, _ = corpus(folder, shards, dtype)
    return PackedDataset(stream, [np.array(s, dtype=np.int64) for s in shards], length, seed, END)


def pieces_of(batch: PackedBatch) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of every document or piece of a batch, padding left out."""
    found = []
    inputs, targets = batch.inputs_CL.ravel(), batch.targets_CL.ravel()
    bounds = batch.boundaries().tolist()
    for first, end in itertools.pairwise(bounds):
        assert batch.positions_CL.ravel()[first:end].tolist() == list(range(end - first))
        if (targets[first:end] != IGNORED).all():
            found.append((inputs[first:end].tolist(), targets[first:end].tolist()))
        else:  # the end of a sequence
            assert (targets[first:end] == IGNORED).all() and end % batch.inputs_CL.shape[1] == 0
    return found


SHARDS = [[5, 1, 12, 30, 2], [], [10, 11, 9, 1, 1, 1, 25], [40]]


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("length", [1, 2, 10, 64])
def test_every_token_is_a_target_once_and_its_context_is_of_its_own_document(
    tmp_path: Path, length: int, dtype: str
) -> None:
    _, documents = corpus(tmp_path, SHARDS, dtype)
    dataset = packed(tmp_path, SHARDS, length, dtype=dtype)
    batch = dataset.batch(0, len(dataset))
    assert batch.inputs_CL.shape == (len(dataset), length) and batch.inputs_CL.dtype == np.int64
    wanted = []
    for document in documents:
        inputs = [END, *document[:-1]]  # end-of-text begins a text
        wanted += [(inputs[a : a + length], document[a : a + length]) for a in range(0, len(document), length)]
    assert sorted(pieces_of(batch)) == sorted(wanted)
    padding = (batch.targets_CL == IGNORED).mean()
    assert padding == pytest.approx(dataset.padding_share)


def test_the_order_is_that_of_the_seed_and_of_no_number_of_ranks(tmp_path: Path) -> None:
    dataset = packed(tmp_path, SHARDS, 10)
    n = len(dataset)
    whole = dataset.batch(0, 2 * n)
    again = pickle.loads(pickle.dumps(dataset))
    parts = [again.batch(first, min(3, 2 * n - first)) for first in range(0, 2 * n, 3)]
    for name in ("inputs_CL", "targets_CL", "positions_CL"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    assert sorted(pieces_of(dataset.batch(0, n))) == sorted(pieces_of(dataset.batch(n, n)))
    assert not np.array_equal(whole.inputs_CL[:n], whole.inputs_CL[n:])
    assert not np.array_equal(whole.inputs_CL, packed(tmp_path, SHARDS, 10, seed=2).batch(0, 2 * n).inputs_CL)


def test_an_index_that_does_not_fit_and_an_empty_corpus_are_refused(tmp_path: Path) -> None:
    stream, _ = corpus(tmp_path, [[5], [7]])
    with pytest.raises(ValueError, match="shard 1 holds 7 tokens, its index names documents of 6"):
        PackedDataset(stream, [np.array([5]), np.array([6])], 10, 1, END)
    empty: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    with pytest.raises(ValueError, match="hold no document to pack: take more of the crawl"):
        PackedDataset(corpus(tmp_path, [[]])[0], empty, 10, 1, END)
