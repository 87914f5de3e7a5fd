import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import File
from ray_jobs.checkpoint.store import Store
from ray_jobs.files.parts import (
    cut_keys,
    cut_table,
    pairs_of,
    parted_file,
    read_pairs,
    read_parts,
    read_table_each,
    read_tables,
    split_table,
)
from tests.files.stored import stored


def test_any_range_of_parts_comes_back_as_it_was_written(store: Store) -> None:
    parts = [b"first", b"", b"third" * 1000, b"", b"x"]
    file = stored(store, parted_file(parts))
    for first in range(5):
        for end in range(first + 1, 6):
            assert read_parts(store, file, first, end) == parts[first:end]


def test_a_flipped_bit_is_found_in_the_part_that_holds_it_and_in_the_table(store: Store) -> None:
    parts = [b"first", b"second", b"third"]
    data = parted_file(parts).data
    start = data.index(b"second")
    for place, damaged in ((start, [1]), (start - 5, [0]), (16, [0, 1]), (24, [0]), (8, [0])):
        flipped = bytearray(data)
        flipped[place] ^= 1
        file = stored(store, File(bytes(flipped)), f"at {place}")
        for part in range(3):
            if part in damaged:
                with pytest.raises(DamagedOutput, match="gone or damaged"):
                    read_parts(store, file, part, part + 1)
            else:
                assert read_parts(store, file, part, part + 1) == [parts[part]]


def test_a_file_that_is_gone_or_cut_off_is_damaged(store: Store) -> None:
    file = stored(store, parted_file([b"a" * 100, b"b" * 100]))
    store.put("cut", parted_file([b"a" * 100, b"b" * 100]).data[:-1])
    for path in ("cut", "gone"):
        with pytest.raises(DamagedOutput):
            read_parts(store, file.model_copy(update={"path": path}), 1, 2)


def test_keys_fall_into_equal_ranges(store: Store) -> None:
    keys = np.sort(np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64))
    rows = pairs_of(keys, np.arange(1000, dtype=np.uint64))
    for num_parts in (1, 2, 8):
        file = stored(store, parted_file(cut_keys(rows, num_parts)))
        for part in range(num_parts):
            inside = keys // np.uint64(2**64 // num_parts - (num_parts == 1)) == part if num_parts > 1 else keys >= 0
            assert np.array_equal(read_pairs(store, file, part, part + 1), rows[inside])


def test_tables_come_back_by_part(store: Store) -> None:
    table = pa.table({"a": [1, 2, 3, 4], "b": ["w", None, "y", "z"]})
    files = [stored(store, parted_file(cut_table(table, [0, 3, 3, 4])), name) for name in ("x", "y")]
    assert read_tables(store, files, 0, table.schema).to_pylist() == table.slice(0, 3).to_pylist() * 2
    assert read_tables(store, files, 1, table.schema).num_rows == 0


def test_each_row_stands_in_the_part_of_its_address_in_the_order_they_had(store: Store) -> None:
    table = pa.table({"value": [10, 11, 12, 13]})
    addresses = {"a": [2, 0, 2, 3], "b": [1, 1, 1, 1]}
    files = [stored(store, split_table(table, np.array(to), 4), name) for name, to in addresses.items()]
    found = [[part and part["value"].to_pylist() for part in read_table_each(store, files, i)] for i in range(4)]
    assert found == [[[11], None], [None, [10, 11, 12, 13]], [[10, 12], None], [[13], None]]
    empty = stored(store, split_table(table.slice(0, 0), np.empty(0, np.int64), 4), "empty")
    assert read_table_each(store, [empty], 3) == [None]
    with pytest.raises(AssertionError, match="one of 2"):
        split_table(table, np.array([0, 1, 2, 0]), 2)
