"""Documents that training never sees, as the tokens node holds them out, and the domain that each is of."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from configs.tokens import TokensSpec, source_names
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.tokenizer.documents import files_of, interleaved, sources_of

log = logging.getLogger("headrace")


@dataclass(frozen=True)
class HeldOut:
    """A document's tokens, none of them special, and the bytes of its text in UTF-8."""

    id: str
    tokens: npt.NDArray[np.int64]
    num_bytes: int
    source: str = "documents"
    shard: int = 0
    """Of the tokens node."""


def heldout_documents(tokens: Checkpoint, most: int) -> list[HeldOut]:
    """The first held-out documents, in the order of shards. Raises ValueError where there is none."""
    dtype = np.dtype(str(tokens.manifest.metrics["dtype"])).newbyteorder("<")
    documents: list[HeldOut] = []
    for data, index in zip(
        tokens.files("tokens.bin", stage="heldout"), tokens.files("index.parquet", stage="heldout"), strict=True
    ):
        assert data.shard == index.shard, (data.path, index.path)
        stream = np.frombuffer(tokens.read(data), dtype=dtype)
        for row in pq.read_table(io.BytesIO(tokens.read(index))).to_pylist():
            if len(documents) == most:
                return documents
            # The last token is end-of-text; a document of nothing else has nothing to score.
            text = stream[row["start"] : row["start"] + row["length"] - 1].astype(np.int64)
            if len(text):
                documents.append(HeldOut(row["id"], text, row["bytes"], row["source"], data.shard))
    if not documents:
        raise ValueError("there are no held-out documents: raise tokens.heldout_share, or take more of the crawl")
    return documents


def domains_of(tokens: Checkpoint, documents: Sequence[HeldOut]) -> list[str]:
    """The host of each document's URL; its source where it has none.

    URLs stand with the documents that the tokens were made of. Where garbage collection took those, all are told by
    their source.
    """
    spec = TokensSpec.model_validate(tokens.manifest.payload.get("spec", {}))
    try:
        inputs = {
            slot: Checkpoint.open(tokens.store, tokens.manifest.inputs[slot].node, tokens.manifest.inputs[slot].key)
            for slot in source_names(tokens.manifest.inputs)
        }
    except FileNotFoundError as gone:
        log.warning("held-out documents are told apart by source, not by host: %s", gone)
        return [document.source for document in documents]
    weighed = {source: of for source, of in sources_of(inputs).items() if spec.weights.get(source, 1.0)}
    files = interleaved(files_of(weighed))
    urls: dict[str, str] = {}
    for shard in sorted({document.shard for document in documents} & set(range(len(files)))):
        table = files[shard].read(["id", "url"])
        wanted = {document.id for document in documents if document.shard == shard}
        pairs = zip(table["id"].to_pylist(), table["url"].to_pylist(), strict=True)
        urls |= {id_: url for id_, url in pairs if id_ in wanted and url}
    return [urlsplit(urls.get(document.id, "")).hostname or document.source for document in documents]
