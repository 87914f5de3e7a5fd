"""The tables that outside data becomes."""

import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.checkpoint.shards import File, parquet_file

DOCUMENTS = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "language": pa.string(),
        "language_score": pa.float32(),
        "text": pa.large_string(),
    }
)
LABELLED = DOCUMENTS.append(pa.field("label", pa.string()))
EXAMPLES = pa.schema(
    {"set": pa.string(), "example": pa.int64(), "text": pa.large_string(), "record": pa.large_string()}
)
GROUP_CHARACTERS = 16 << 20
"""Of text; so much is held before it is compressed into a row group."""


class DocumentsFile:
    """A documents.parquet in the making, of which one row group is held uncompressed.

    Args:
        prefix: source and file, the first parts of the documents' ids.
    """

    def __init__(self, prefix: str, language: str | None, schema: pa.Schema = DOCUMENTS):
        self._prefix, self._language, self._schema = prefix, language, schema
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=1)
        self._rows: list[dict[str, Any]] = []
        self._characters = 0
        self.num_documents = 0
        self.num_bytes = 0
        """Of text, in UTF-8."""

    def add(self, row: int, url: str, text: str, **columns: str) -> None:
        data = encoded(text)
        self._rows.append(
            {
                "id": f"{self._prefix}/{row:012d}",
                "url": url,
                "language": self._language,
                "language_score": None,
                "text": data,
                **columns,
            }
        )
        self.num_documents += 1
        self.num_bytes += len(data)
        self._characters += len(text)
        if self._characters >= GROUP_CHARACTERS:
            self._write_group()

    def finish(self) -> File:
        if self._rows or not self.num_documents:
            self._write_group()
        self._writer.close()
        return File(self._sink.getvalue(), self.num_documents)

    def _write_group(self) -> None:
        columns = {field.name: pa.array([row[field.name] for row in self._rows], field.type) for field in self._schema}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._characters = [], 0


def encoded(text: str) -> bytes:
    """In UTF-8; a surrogate without its other half, which JSON can hold, becomes a question mark."""
    return text.encode(errors="replace")


def examples_file(name: str, examples: Iterable[tuple[str, Any]]) -> File:
    """The set's examples, each a text and its whole row, numbered from 0."""
    texts, records = [], []
    for text, record in examples:
        texts.append(encoded(text))
        records.append(json.dumps(record, default=str))
    table = pa.table(
        {"set": [name] * len(texts), "example": range(len(texts)), "text": texts, "record": records}, schema=EXAMPLES
    )
    return parquet_file(table)
