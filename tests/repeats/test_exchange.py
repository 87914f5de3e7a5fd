from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.repeats.exchange import exchange_file, read_part, read_parts, split_by

TABLE = pa.table({"value": [10, 11, 12, 13]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def written(store: Store, name: str, addresses: list[int]) -> OutputFile:
    file = exchange_file(split_by(TABLE, np.array(addresses)), 4)
    store.put(name, file.data)
    return OutputFile(
        stage="s", shard=0, name=name, path=name, bytes=len(file.data), sha256="", rows=file.rows, volatile=False
    )


def test_each_part_is_read_as_it_was_addressed_in_its_order(store: Store) -> None:
    files = [written(store, "a", [2, 0, 2, 3]), written(store, "b", [1, 1, 1, 1])]
    assert files[0].rows == 4
    parts = [[part and part["value"].to_pylist() for part in read_parts(store, files, i, 4)] for i in range(4)]
    assert parts == [[[11], None], [None, [10, 11, 12, 13]], [[10, 12], None], [[13], None]]


def test_a_file_without_rows_has_only_empty_parts(store: Store) -> None:
    store.put("a", exchange_file({}, 4).data)
    file = written(store, "b", [0, 0, 0, 0])
    assert read_part(store, replace_path(file, "a"), 3, 4) is None


@pytest.mark.parametrize("place", [5, -3])
def test_a_flipped_byte_is_found_in_index_and_part(store: Store, place: int) -> None:
    file = written(store, "a", [3, 3, 3, 3])
    data = bytearray(store.get("a") or b"")
    data[place] ^= 1
    store.put("a", bytes(data))
    with pytest.raises(DamagedOutput, match="run again"):
        read_part(store, file, 3, 4)


def test_a_file_that_is_gone_or_for_another_number_of_parts_is_damaged(store: Store) -> None:
    file = written(store, "a", [3, 3, 3, 3])
    with pytest.raises(DamagedOutput):
        read_part(store, replace_path(file, "gone"), 0, 4)
    with pytest.raises(DamagedOutput):
        read_part(store, file, 0, 5)


def replace_path(file: OutputFile, path: str) -> OutputFile:
    return file.model_copy(update={"path": path})
