"""The texts of a node's documents, for the two nodes of this room."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.tokenizer import bpe


def texts_of(table: pa.Table) -> Iterator[str]:
    for value in table["text"].cast(pa.large_binary()):
        yield bpe.decoded(value.as_py())


def read(documents: Checkpoint, file: OutputFile, columns: list[str]) -> pa.Table:
    return pq.read_table(pa.BufferReader(documents.read(file)), columns=columns)
