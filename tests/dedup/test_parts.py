from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.retraction import normalised_url
from ray_jobs.checkpoint.shards import File, OutputFile
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.dedup.parts import cut_keys, cut_table, pairs_of, parted_file, read_pairs, read_parts, read_tables
from ray_jobs.dedup.ranges import read_rows, searchable_file
from ray_jobs.dedup.urls import url_hashes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def stored(store: Store, file: File, path: str = "one") -> OutputFile:
    store.put(path, file.data)
    return OutputFile(stage="s", shard=0, name="n", path=path, bytes=len(file.data), sha256="", rows=file.rows)


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


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("HTTP://Example.ORG:80", "http://example.org/", True),
        ("https://example.org:443/a?b=C#d", "https://example.org/a?b=C", True),
        ("https://User@example.org/", "https://user@example.org/", False),
        ("https://example.org/A", "https://example.org/a", False),
        ("https://example.org:80/", "https://example.org/", False),
        ("http://example.org/a?b=1", "http://example.org/a?b=2", False),
        ("http://example.org/a", "https://example.org/a", False),
        ("urn:isbn:1#x", "urn:isbn:1", True),
    ],
)
def test_urls_are_the_same_where_normalisation_changes_no_meaning(one: str, other: str, equal: bool) -> None:
    assert (normalised_url(one) == normalised_url(other)) is equal


def test_a_document_without_a_url_has_no_hash() -> None:
    hashes = url_hashes(pa.chunked_array([["http://a/", "", None]]))
    assert hashes.any(axis=1).tolist() == [True, False, False]
