"""Token streams over files and over a store, and what the loader makes of them."""

import pickle
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store
from ray_jobs.tokenizer.loader import ShuffledOrder, TokenDataset, read_ahead
from ray_jobs.tokenizer.permutation import Permutation
from ray_jobs.tokenizer.streams import LocalStream, StoreStream
from tests.tokenizer.test_loader import write_shards

SIZES = (1000, 0, 1, 0, 0, 300_000, 7, 65_000)


def put_shards(store: Store, sizes: Sequence[int], dtype: str) -> list[OutputFile]:
    """As `write_shards`, in the store."""
    files, start = [], 0
    for shard, size in enumerate(sizes):
        data = np.arange(start, start + size).astype(dtype).tobytes()
        path = f"tokens/{shard:05d}.bin"
        store.put(path, data)
        files.append(
            OutputFile(stage="train", shard=shard, name="tokens.bin", path=path, bytes=len(data), sha256="", rows=size)
        )
        start += size
    return files


@pytest.fixture(params=["uint16", "uint32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def streams(tmp_path: Path, store: Store, dtype: str) -> Iterator[tuple[LocalStream, StoreStream]]:
    """The same tokens in files and in a store of each kind."""
    yield (
        LocalStream(write_shards(tmp_path, list(SIZES), dtype), dtype),
        StoreStream(store, put_shards(store, SIZES, dtype), dtype),
    )


def test_any_spans_are_read_alike_from_files_and_from_a_store(
    streams: tuple[LocalStream, StoreStream], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough that this corpus has ranges apart, ranges that are merged and ranges that are cut.
    monkeypatch.setattr("ray_jobs.tokenizer.streams.MERGED_GAP_BYTES", 500)
    monkeypatch.setattr("ray_jobs.tokenizer.streams.RANGE_BYTES", 20_000)
    total, draw = sum(SIZES), np.random.default_rng(3)
    starts = np.concatenate([draw.integers(0, total, 300), [0, total, 999, 1000, 0]])
    lengths = np.minimum(np.concatenate([draw.integers(0, 900, 300), [total, 0, 3, 1, 0]]), total - starts)
    places = np.cumsum(lengths) - lengths
    monkeypatch.setattr("ray_jobs.tokenizer.streams.ADVISED_FROM_BYTES", 1)
    advised = LocalStream(streams[0].paths, dtype)
    assert advised._advised and not streams[0]._advised
    wanted = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)]).astype(dtype)
    for stream in (*streams, advised):
        out = np.full(int(lengths.sum()), -1, dtype=np.int64)
        stream.read(starts, lengths, out, places)
        assert np.array_equal(out, wanted.astype(np.int64))


def test_a_dataset_of_a_store_is_that_of_the_files_and_travels(streams: tuple[LocalStream, StoreStream]) -> None:
    local, remote = (TokenDataset(stream, 64, seed=5, run_length=8) for stream in streams)
    wanted = local.batch(100, 40)
    assert np.array_equal(remote.batch(100, 40), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(remote)).batch(100, 40), wanted)


def test_neighbours_are_fetched_by_one_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = put_shards(store, [50_000, 50_000], "uint16")
    asked = []
    get_range = type(store).get_range
    monkeypatch.setattr("ray_jobs.tokenizer.streams.MERGED_GAP_BYTES", 0)
    monkeypatch.setattr(
        type(store), "get_range", lambda self, path, a, n: asked.append((path, a, n)) or get_range(self, path, a, n)
    )
    dataset = TokenDataset(StoreStream(store, files, "uint16"), 100, seed=1, run_length=16)
    dataset.batch(0, 64)
    assert len(asked) <= 5  # four runs, of which one may stand on the seam
    assert sum(n for _, _, n in asked) == 4 * (16 * 100 + 1) * 2
    asked.clear()
    dataset.batch(64 + 4, 4)  # a rank's part of a run: no more than it needs
    assert sum(n for _, _, n in asked) == (4 * 100 + 1) * 2


def test_a_shard_that_is_gone_or_short_says_what_to_do(store: Store) -> None:
    files = put_shards(store, [500, 500], "uint16")
    dataset = TokenDataset(StoreStream(store, files, "uint16"), 10, seed=1)
    store.put(files[0].path, b"\0" * 100)
    with pytest.raises(DamagedOutput, match=r"shorter than its manifest says: `headrace verify` lists"):
        dataset.read(np.array([30]))
    store.delete([files[0].path])
    with pytest.raises(DamagedOutput, match="is gone"):
        dataset.read(np.array([0]))


@pytest.mark.parametrize(("num_items", "run_length"), [(100, 1), (100, 7), (100, 100), (100, 1000), (5, 4), (1, 3)])
def test_an_epoch_of_runs_shows_every_item_once(num_items: int, run_length: int) -> None:
    order = ShuffledOrder(num_items, seed=2, run_length=run_length)
    epochs = order(0, 3 * num_items).reshape(3, num_items)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_items), (3, 1)))
    run_length = min(run_length, num_items)
    whole = epochs[:, : num_items // run_length * run_length].reshape(3, -1, run_length)
    assert (np.diff(whole, axis=2) == 1).all() and (whole[:, :, 0] % run_length == 0).all()
    if num_items // run_length > 5:
        assert not np.array_equal(epochs[0], epochs[1])
    pieces = [order(first, min(13, 3 * num_items - first)) for first in range(0, 3 * num_items, 13)]
    assert np.array_equal(np.concatenate(pieces), epochs.ravel())


def test_runs_of_one_are_the_order_of_the_permutation() -> None:
    # What was trained before there were runs goes on with the samples that it would have had.
    assert np.array_equal(ShuffledOrder(50, seed=3)(0, 50), Permutation(50, seed=3)(np.arange(50)))
    with pytest.raises(ValueError, match="run_length must be at least 1"):
        ShuffledOrder(10, seed=1, run_length=0)


class Counting:
    """Batches that say what was asked for; some fail."""

    def __init__(self, failing: int = -1):
        self.asked: list[int] = []
        self.failing = failing
        self.lock = threading.Lock()

    def batch(self, first: int, count: int) -> list[int]:
        with self.lock:
            self.asked.append(first)
        if first == self.failing:
            raise OSError(f"no sample {first}")
        return list(range(first, first + count))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_reading_ahead_gives_the_same_batches_in_their_order(depth: int) -> None:
    requests = [(first, 3) for first in range(0, 60, 3)]
    samples = Counting()
    assert list(read_ahead(samples, iter(requests), depth)) == [samples.batch(*one) for one in requests]
    assert list(read_ahead(Counting(), [], depth)) == []


def test_reading_ahead_goes_no_further_than_its_depth_and_raises_where_reading_does() -> None:
    samples = Counting(failing=10)
    batches = read_ahead(samples, ((first, 1) for first in range(1000)), depth=2)
    assert next(batches) == [0]
    assert max(samples.asked) <= 2
    with pytest.raises(OSError, match="no sample 10"):
        list(batches)
    assert max(samples.asked) <= 12
    with pytest.raises(ValueError, match="depth must be at least 1"):
        next(read_ahead(samples, [(0, 1)], depth=0))
