"""Outside files of every kind, and the nodes that read them."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.external import EvalSetsSource, LabelsSource, ReferenceSource
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.external.pins import pin_eval_sets, pin_labels, pin_reference
from tests.dedup.corpus import computed


def reference(store: Store, **files: Any) -> Checkpoint:
    return computed(pin_reference(ReferenceSource.model_validate({"files": files})), {}, store)


def labels(store: Store, **fields: Any) -> Checkpoint:
    return computed(pin_labels(LabelsSource.model_validate(fields)), {}, store)


def eval_sets(store: Store, *sets: dict[str, Any]) -> Checkpoint:
    return computed(pin_eval_sets(EvalSetsSource.model_validate({"sets": sets})), {}, store)


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """The rows in the format that the path's name tells."""
    data = io.BytesIO()
    plain = path.name.removesuffix(".gz").removesuffix(".zst")
    if plain.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), data)
    elif plain.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data.write(text.getvalue().encode())
    else:
        data.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    path.write_bytes(compressed(path.name, data.getvalue()))
    return str(path)


def compressed(name: str, data: bytes) -> bytes:
    """In two members where the name's end asks for compression, as tools that append leave them."""
    half = len(data) // 2
    if name.endswith(".gz"):
        return gzip.compress(data[:half]) + gzip.compress(data[half:])
    if name.endswith(".zst"):
        codec = pa.Codec("zstd")
        return b"".join(codec.compress(part, asbytes=True) for part in (data[:half], data[half:]))
    return data
