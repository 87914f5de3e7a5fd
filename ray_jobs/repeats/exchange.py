"""Files cut in addressed parts: what one shard of a stage has for each shard of the next.

A file is an index, then the parts that hold anything, each a Parquet file of its own. The index has for each of p parts
its first byte, its length and its xxh3-64 (uint64 [p, 3], little-endian), and ends with the xxh3-64 of itself. So s
shards that write for p readers leave s objects, not s·p, and a reader asks each for an index and one range.
"""

import io
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.shards import File, OutputFile
from ray_jobs.checkpoint.store import Store


def exchange_file(parts: Mapping[int, pa.Table], num_parts: int) -> File:
    """The parts by their number; those without a row are left out."""
    index = np.zeros((num_parts, 3), dtype="<u8")
    contents = []
    end = index.nbytes + 8
    for part in sorted(parts):
        if parts[part].num_rows:
            content = _parquet(parts[part])
            index[part] = end, len(content), xxhash.xxh3_64_intdigest(content)
            end += len(content)
            contents.append(content)
    head = index.tobytes()
    rows = sum(table.num_rows for table in parts.values())
    return File(b"".join([head, _checksum(head), *contents]), rows)


def split_by(table: pa.Table, addresses: np.ndarray) -> dict[int, pa.Table]:
    """The table's rows by the part that each is for, in the order they had."""
    order = np.argsort(addresses, kind="stable")
    table = table.take(pa.array(order))
    numbers, starts = np.unique(addresses[order], return_index=True)
    bounds = itertools.pairwise([*starts.tolist(), len(order)])
    return {
        number: table.slice(start, end - start) for number, (start, end) in zip(numbers.tolist(), bounds, strict=True)
    }


def read_part(store: Store, file: OutputFile, part: int, num_parts: int) -> pa.Table | None:
    """One part of a file, or None where it is empty.

    Raises:
        DamagedOutput: it is gone, or its bytes are not those that were written.
    """
    try:
        head = store.get_range(file.path, 0, num_parts * 24 + 8)
        index = np.frombuffer(head[:-8], dtype="<u8").reshape(-1, 3) if head[-8:] == _checksum(head[:-8]) else None
        if index is not None and len(index) == num_parts:
            start, length, checksum = index[part].tolist()
            if not length:
                return None
            content = store.get_range(file.path, start, length)
            if xxhash.xxh3_64_intdigest(content) == checksum:
                return pq.read_table(pa.BufferReader(content))
    except FileNotFoundError:
        pass
    raise DamagedOutput(
        f"{store.url_of(file.path)} is gone or does not match its checksums: delete it and run again: just its shard "
        "is computed"
    )


def read_parts(store: Store, files: Sequence[OutputFile], part: int, num_parts: int) -> list[pa.Table | None]:
    """The same part of many files, in their order, as many at a time as the store bears."""
    return list(store.concurrently(lambda file: read_part(store, file, part, num_parts), files))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    # Hashes hardly recur: looking for those that do takes longer than writing all.
    pq.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=False)
    return sink.getvalue()


def _checksum(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")
