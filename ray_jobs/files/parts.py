"""Files in parts: what a shuffle writes, one part for each reader, of which a reader fetches its own and no more.

    (where the parts begin, magic); for each part (where it ends, xxh3-64 of its bytes); the parts, end to end

Parts are fetched by two range reads, one of their entries and one of their bytes, and are checked as they are read: a
checksum of the whole file would say nothing to who reads a piece of it.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import File, OutputFile
from ray_jobs.checkpoint.store import Store

_ENTRY = np.dtype([("end", "<u8"), ("xxh3", "<u8")])
_MAGIC = int.from_bytes(b"HRPARTS1", "little")
BATCH_ROWS = 1 << 20
PAIR = np.dtype([("first", "<u8"), ("second", "<u8")])


def parted_file(parts: Sequence[bytes | memoryview], rows: int = 0) -> File:
    """The parts as one file, in order; an empty part takes its entry only."""
    table = np.zeros(len(parts) + 1, dtype=_ENTRY)
    table[0] = (table.nbytes, _MAGIC)
    table["end"][1:] = table.nbytes + np.cumsum([len(part) for part in parts], dtype=np.uint64)
    table["xxh3"][1:] = [xxhash.xxh3_64_intdigest(part) for part in parts]
    return File(b"".join([table.tobytes(), *parts]), rows)


def read_parts(store: Store, file: OutputFile, first: int, end: int) -> list[bytes]:
    """Parts `first` to `end` (one of them at least) of the file.

    Raises:
        DamagedOutput: the file is gone, or what stands there is not what was written.
    """
    entries = _range(store, file, first * _ENTRY.itemsize, (end - first + 1) * _ENTRY.itemsize)
    table = np.frombuffer(entries, dtype=_ENTRY)
    ends: list[int] = table["end"].tolist()
    if sorted(ends) != ends or ends[-1] > file.bytes or (first == 0 and table["xxh3"][0] != _MAGIC):
        raise _damaged(store, file)
    body = memoryview(_range(store, file, ends[0], ends[-1] - ends[0]) if ends[-1] > ends[0] else b"")
    parts = [bytes(body[start - ends[0] : stop - ends[0]]) for start, stop in itertools.pairwise(ends)]
    for part, checksum in zip(parts, table["xxh3"][1:].tolist(), strict=True):
        if xxhash.xxh3_64_intdigest(part) != checksum:
            raise _damaged(store, file)
    return parts


def pairs_of(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
    """Two columns as rows of PAIR."""
    rows = np.empty(len(first), dtype=PAIR)
    rows["first"], rows["second"] = first, second
    return rows


def unique_rows(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The different pairs, ascending."""
    rows = rows[np.lexsort((rows["second"], rows["first"]))]
    fresh = np.ones(len(rows), dtype=np.bool_)
    fresh[1:] = (rows["first"][1:] != rows["first"][:-1]) | (rows["second"][1:] != rows["second"][:-1])
    return rows[fresh]


def cut(rows: npt.NDArray[np.void], ends: npt.NDArray[np.int64]) -> list[memoryview]:
    """The rows in parts, each up to one of the ascending `ends`."""
    return [memoryview(rows[start:end].tobytes()) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def cut_keys(rows: npt.NDArray[np.void], num_parts: int) -> list[memoryview]:
    """Rows in the order of the upper bits of `first`, in that many equal ranges of it (a power of two)."""
    of_part = rows["first"] >> np.uint64(64 - part_bits(num_parts)) if num_parts > 1 else np.zeros(len(rows))
    return cut(rows, np.searchsorted(of_part, np.arange(num_parts), side="right"))


def part_bits(num_parts: int) -> int:
    """Upper bits of a key that name its range."""
    return num_parts.bit_length() - 1


def read_pairs(store: Store, file: OutputFile, first: int, end: int) -> npt.NDArray[np.void]:
    """The rows of these parts, in their order."""
    return np.frombuffer(b"".join(read_parts(store, file, first, end)), dtype=PAIR)


def cut_table(table: pa.Table, bounds: Sequence[int]) -> list[memoryview]:
    """The table's rows between each two of the ascending bounds, as parts for `read_tables`."""
    return [_table_part(table, start, end) for start, end in itertools.pairwise(bounds)]


def split_table(table: pa.Table, addresses: npt.NDArray[np.integer[Any]], num_parts: int) -> File:
    """A file with each row of the table in the part of its address, in the order they had."""
    order = np.argsort(addresses, kind="stable")
    bounds = np.searchsorted(addresses, np.arange(num_parts + 1), sorter=order).tolist()
    assert bounds[-1] - bounds[0] == len(order), f"every address is one of {num_parts}"
    parts = [_table_part(table, start, end, order) for start, end in itertools.pairwise(bounds)]
    return parted_file(parts, table.num_rows)


def _table_part(table: pa.Table, start: int, end: int, order: npt.NDArray[np.integer[Any]] | None = None) -> memoryview:
    """Rows `start` to `end` of the table, as it is or in that order; nothing where there are none."""
    if start == end:
        return memoryview(b"")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        # A batch at a time, or the rows in order and what is compressed of them would stand in memory twice more.
        for first in range(start, end, BATCH_ROWS):
            last = min(first + BATCH_ROWS, end)
            batch = table.slice(first, last - first) if order is None else table.take(pa.array(order[first:last]))
            writer.write_table(batch)
    return memoryview(sink.getvalue())


def read_tables(store: Store, files: Sequence[OutputFile], part: int, schema: pa.Schema) -> pa.Table:
    """This part of every file, one after the other."""
    tables = [table for table in read_table_each(store, files, part) if table is not None]
    return pa.concat_tables([schema.empty_table(), *tables])


def read_table_each(store: Store, files: Sequence[OutputFile], part: int) -> list[pa.Table | None]:
    """This part of each file; None where it has no rows."""

    def read(file: OutputFile) -> pa.Table | None:
        data = read_parts(store, file, part, part + 1)[0]
        return pa.ipc.open_stream(data).read_all() if data else None

    return list(store.concurrently(read, files))


def _range(store: Store, file: OutputFile, start: int, length: int) -> bytes:
    try:
        data = store.get_range(file.path, start, length)
    except FileNotFoundError:
        data = b""
    if len(data) != length:
        raise _damaged(store, file)
    return data


def _damaged(store: Store, file: OutputFile) -> DamagedOutput:
    return DamagedOutput(
        f"{store.url_of(file.path)} is gone or damaged: `headrace verify --deep --withdraw` finds what else is, and "
        "the next run computes just its shard again"
    )
