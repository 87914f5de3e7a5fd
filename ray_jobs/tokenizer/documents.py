"""The documents of one or several sources, for the two nodes of this room."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from configs.tokens import source_names
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.tokenizer import bpe

DOCUMENTS = "documents.parquet"


@dataclass(frozen=True)
class DocumentFile:
    """One file of documents. Picklable: an address, no content."""

    source: str
    documents: Checkpoint
    file: OutputFile

    def read(self, columns: list[str]) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.documents.read(self.file)), columns=columns)


def sources_of(inputs: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Source -> the checkpoint that holds its documents, in the order of names."""
    return {source: inputs[slot] for slot, source in source_names(inputs).items()}


def files_of(sources: Mapping[str, Checkpoint]) -> list[DocumentFile]:
    """The files of all sources, source after source."""
    return [
        DocumentFile(source, documents, file)
        for source, documents in sources.items()
        for file in documents.files(DOCUMENTS)
    ]


def nodes_of(sources: Mapping[str, Checkpoint]) -> str:
    """What a message calls them: "scrub", or "scrub (september) and scrub (october)"."""
    if len(sources) == 1:
        return next(iter(sources.values())).node
    return " and ".join(f"{documents.node} ({source})" for source, documents in sources.items())


def texts_of(table: pa.Table) -> Iterator[str]:
    for value in table["text"].cast(pa.large_binary()):
        yield bpe.decoded(value.as_py())
