from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.retraction import normalised_url
from ray_jobs.checkpoint.shards import File, OutputFile
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.dedup.ranges import read_rows, searchable_file
from ray_jobs.dedup.urls import url_hashes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def stored(store: Store, file: File, path: str = "one") -> OutputFile:
    store.put(path, file.data)
    return OutputFile(stage="s", shard=0, name="n", path=path, bytes=len(file.data), sha256="", rows=file.rows)


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
