import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import File
from ray_jobs.checkpoint.store import Store
from ray_jobs.files.ranges import find_rows, read_rows, searchable_file
from tests.files.stored import stored


def test_few_rows_of_a_large_file_are_read_without_the_rest(store: Store) -> None:
    text = np.random.default_rng(0).bytes(2_000_000)
    table = pa.table(
        {
            "id": [f"{i:05d}" for i in range(10_000)],
            "text": pa.array([text[i * 200 : i * 200 + 200] for i in range(10_000)], pa.large_binary()),
        }
    )
    file = stored(store, searchable_file(table))
    read: list[int] = []
    plain = store.get_range
    store.get_range = lambda path, start, length: read.append(length) or plain(path, start, length)  # type: ignore[method-assign]
    found = read_rows(store, file, ["id", "text"], "id", ["05000", "05003", "missing"])
    assert found.to_pylist() == table.take([5000, 5003]).to_pylist()
    assert sum(read) < 0.3 * file.bytes


def test_a_flipped_bit_in_a_page_is_found(store: Store) -> None:
    text = pa.array([np.random.default_rng(i).bytes(1000) for i in range(100)], pa.large_binary())
    data = bytearray(searchable_file(pa.table({"id": [f"{i:03d}" for i in range(100)], "text": text})).data)
    data[data.index(text[50].as_py())] ^= 1
    with pytest.raises(DamagedOutput, match="damaged"):
        read_rows(store, stored(store, File(bytes(data))), ["id", "text"], "id", ["050"])


def test_rows_are_found_in_the_file_that_holds_them_and_few_others_are_opened(store: Store) -> None:
    tables = [pa.table({"id": [f"{n:03d}/{i:04d}" for i in range(1, 2500)], "n": [n] * 2499}) for n in range(40)]
    tables[7] = tables[7][:0]
    files = [stored(store, searchable_file(table), f"file{n}") for n, table in enumerate(tables)]
    opened: set[str] = set()
    plain = store.get_range
    store.get_range = lambda path, start, length: opened.add(path) or plain(path, start, length)  # type: ignore[method-assign]
    wanted = ["005/0001", "005/2499", "030/1024", "030/0000", "007/0001", "", "zzz"]
    found = find_rows(store, files, ["id", "n"], "id", wanted)
    pairs = sorted(zip(found["id"].to_pylist(), found["n"].to_pylist(), strict=True))
    assert pairs == [("005/0001", 5), ("005/2499", 5), ("030/1024", 30)]
    assert len(opened) < 20
    assert find_rows(store, [], ["id"], "id", wanted).num_rows == 0
