"""What a shard leaves: files, counters, and the receipt that publishes them."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class File:
    """One file of a shard, on its way to the store."""

    data: bytes
    rows: int = 0
    volatile: bool = False
    """Holds times or rates: checksummed, but left out of the content digest."""


@dataclass(frozen=True)
class ShardOutput:
    """What the pure function of a stage returns for one shard."""

    files: dict[str, File]
    """Name (such as "documents.parquet") to content. A function of spec and inputs only: no times, no host names."""
    counters: dict[str, int]
    """Flat. A funnel's counters are `documents_in`, `documents_kept` and `dropped.<reason>`, which must add up."""
    info: dict[str, Any] = field(default_factory=dict)
    """Small JSON that travels in the receipt (a few samples, a histogram); not part of the content digest."""


@dataclass(frozen=True)
class Outcome:
    """What a node's `run` returns when all its shards are published."""

    outputs: tuple[str, ...]
    """The stages whose files are the node's outputs; files of other stages are intermediate."""
    counters: dict[str, int] | None = None
    """Node totals; None sums the counters of the output stages."""
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    """Headline figures for the manifest."""
    cpu_seconds: float = 0.0
    """Of processes beside the job's own that left no receipts, such as training ranks."""


class Record(BaseModel):
    """A JSON record of the store. Unknown fields are an error: a newer format must say so by its number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=None).encode()


class OutputFile(Record):
    """A published file. `path` is relative to the store's root."""

    stage: str
    shard: int
    name: str
    path: str
    bytes: int
    sha256: str
    rows: int
    volatile: bool = False


class Receipt(Record):
    """A shard is done: the create-only record names the winning objects."""

    stage: str
    shard: int
    attempt: str
    files: tuple[OutputFile, ...]
    counters: dict[str, int]
    info: dict[str, Any]
    seconds: float
    cpu_seconds: float


def parquet_file(table: "pa.Table") -> File:
    """The table as Parquet, the same bytes for the same table. zstd level 1: 391 MB/s written, 899 read a core."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    return File(sink.getvalue(), table.num_rows)


def check_funnel(counters: Mapping[str, int], what: str) -> None:
    """Nothing is lost silently: what entered was kept or was dropped for a reason that is counted."""
    if "documents_in" not in counters:
        return
    dropped = sum(value for name, value in counters.items() if name.startswith("dropped."))
    entered, kept = counters["documents_in"], counters.get("documents_kept", 0)
    assert entered == kept + dropped, f"{what}: {entered} documents entered, {kept} kept + {dropped} dropped"


def add_counters(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return dict(sorted(total.items()))
