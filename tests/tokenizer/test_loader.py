import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.tokenizer.loader import TokenDataset
from ray_jobs.tokenizer.permutation import Permutation
from ray_jobs.tokenizer.streams import LocalStream


def write_shards(folder: Path, sizes: list[int], dtype: str = "uint16") -> list[Path]:
    """Shards of the stream 0, 1, 2, … so that a token says where it stood."""
    paths, start = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"{number:05d}.bin"
        path.write_bytes(np.arange(start, start + size).astype(dtype).tobytes())
        paths.append(path)
        start += size
    return paths


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 1000, 1024, 1025, 65_537])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_permutation_is_a_bijection(size: int, seed: int) -> None:
    assert np.array_equal(np.sort(Permutation(size, seed)(np.arange(size))), np.arange(size))


def test_permutation_of_a_trillion_needs_no_table() -> None:
    permutation = Permutation(10**12 + 39, seed=3)
    images = permutation(np.arange(10**12, 10**12 + 39))
    assert len(np.unique(images)) == 39 and images.max() < 10**12 + 39


def test_permutation_looks_random() -> None:
    size = 20_000
    order = Permutation(size, seed=5)(np.arange(size))
    places = np.arange(size)
    # The correlation of two random orders has standard deviation 1/√n; fixed points are Poisson(1).
    assert abs(np.corrcoef(places, order)[0, 1]) < 4 / size**0.5
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / size**0.5
    assert (order == places).sum() < 8
    # Differences of neighbours: a random order puts two neighbours side by side about twice in all.
    assert (np.abs(np.diff(order)) == 1).sum() < 12


def test_every_image_is_equally_likely_over_the_seeds() -> None:
    size, num_seeds = 6, 3000
    counts = np.zeros((size, size))
    for seed in range(num_seeds):
        counts[np.arange(size), Permutation(size, seed)(np.arange(size))] += 1
    expected = num_seeds / size
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 60  # 25 degrees of freedom: 99.99% quantile 59


def test_permutation_is_pinned() -> None:
    # Another order would silently give every resumed run other data.
    assert Permutation(10, seed=0)(np.arange(10)).tolist() == [7, 5, 3, 2, 6, 8, 0, 4, 1, 9]


@pytest.mark.parametrize("sizes", [[1000], [1, 0, 0, 3, 500, 2, 496, 0], [10] * 100])
def test_an_epoch_shows_every_window_once_across_shard_seams(tmp_path: Path, sizes: list[int]) -> None:
    length = 7
    dataset = TokenDataset(LocalStream(write_shards(tmp_path, sizes), "uint16"), length, seed=1)
    num_tokens = sum(sizes)
    assert len(dataset) == (num_tokens - 1) // length
    batch = dataset.batch(0, len(dataset))
    assert batch.dtype == np.int64 and batch.shape == (len(dataset), length + 1)
    assert np.array_equal(np.diff(batch, axis=1), np.ones((len(dataset), length)))
    assert np.array_equal(np.sort(batch[:, 0]), np.arange(len(dataset)) * length)
    # Every token but the first of the stream is a target exactly once (up to the last whole window).
    assert np.array_equal(np.sort(batch[:, 1:].ravel()), np.arange(1, len(dataset) * length + 1))
    assert not np.array_equal(batch[:, 0], np.sort(batch[:, 0]))


def test_the_order_does_not_depend_on_how_shards_are_cut(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one = TokenDataset(LocalStream(write_shards(tmp_path / "a", [999]), "uint16"), 10, seed=4)
    many = TokenDataset(LocalStream(write_shards(tmp_path / "b", [333, 5, 0, 661]), "uint16"), 10, seed=4)
    assert np.array_equal(one.batch(0, 250), many.batch(0, 250))


def test_stopping_on_8_ranks_and_going_on_with_3_shows_the_very_next_sample(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [5000])
    global_batch = 24

    def step(world: int, number: int) -> np.ndarray:
        share = global_batch // world
        ranks = [TokenDataset(LocalStream(paths, "uint16"), 16, seed=9) for _ in range(world)]
        return np.concatenate([d.batch(number * global_batch + r * share, share) for r, d in enumerate(ranks)])

    whole = TokenDataset(LocalStream(paths, "uint16"), 16, seed=9).batch(0, 40 * global_batch)  # three epochs
    resumed = np.concatenate([step(8, s) for s in range(17)] + [step(3, s) for s in range(17, 40)])
    assert np.array_equal(whole, resumed)


def test_epochs_and_seeds_have_other_orders(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [3001])
    dataset = TokenDataset(LocalStream(paths, "uint16"), 10, seed=1)
    n = len(dataset)
    first, second = dataset.batch(0, n), dataset.batch(n, n)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first[:, 0]), np.sort(second[:, 0]))
    assert not np.array_equal(first, TokenDataset(LocalStream(paths, "uint16"), 10, seed=2).batch(0, n))
    across = dataset.batch(n - 3, 6)
    assert np.array_equal(across, np.concatenate([first[-3:], second[:3]]))


def test_uint32_tokens_and_an_unshuffled_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    path.write_bytes((np.arange(21, dtype="<u4") + 100_000).tobytes())
    dataset = TokenDataset(LocalStream([path], "uint32"), 5, seed=0)
    assert dataset.read(np.arange(4))[:, 0].tolist() == [100_000, 100_005, 100_010, 100_015]


def test_a_dataset_travels_to_another_process_without_its_tokens(tmp_path: Path) -> None:
    dataset = TokenDataset(LocalStream(write_shards(tmp_path, [60_000]), "uint16"), 10, seed=0)
    before = dataset.batch(0, 5)
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    assert np.array_equal(pickle.loads(data).batch(0, 5), before)


def test_unusable_shards_are_refused_with_a_reason(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [5, 0, 5])
    with pytest.raises(ValueError, match="shorter sequence_length"):
        TokenDataset(LocalStream(paths, "uint16"), 10, seed=0)
    assert len(TokenDataset(LocalStream(paths, "uint16"), 9, seed=0)) == 1
    with pytest.raises(ValueError, match="hold no sequence"):
        TokenDataset(LocalStream([], "uint16"), 4, seed=0)
    with pytest.raises(ValueError, match="check the dtype"):
        TokenDataset(LocalStream(paths, "uint32"), 2, seed=0)
    with pytest.raises(ValueError, match="uint16 or uint32"):
        TokenDataset(LocalStream(paths, "int64"), 2, seed=0)


def test_the_loader_needs_no_torch() -> None:
    code = "import sys, ray_jobs.tokenizer.loader as _; assert not {'torch', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
