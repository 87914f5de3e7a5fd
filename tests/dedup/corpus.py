"""Small corpora, and nodes computed on them inside the test's own process."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.base import Resources, Spec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.code import code_of
from ray_jobs.checkpoint.keys import key_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, digest_of_receipts
from ray_jobs.checkpoint.shards import OutputFile, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.cluster.runner import InputKey, NodeRequest, commit, run_node

IN_PROCESS = Resources(workers=1)


def document_table(texts: Sequence[str | bytes], file: int = 0, crawl: str = "TEST", first: int = 0) -> pa.Table:
    """Documents as the filter writes them; bytes need not be UTF-8."""
    data = [text.encode() if isinstance(text, str) else text for text in texts]
    number = range(first, first + len(data))
    return pa.table(
        {
            "id": pa.array([f"{crawl}/{file:05d}/{offset:012d}" for offset in number], pa.string()),
            "url": pa.array([f"https://example.org/{file}/{offset}" for offset in number], pa.string()),
            "language": pa.array(["en"] * len(data), pa.string()),
            "language_score": pa.array([1.0] * len(data), pa.float32()),
            "text": pa.array(data, pa.large_binary()).view(pa.large_string()),
        }
    )


def published(
    store: Store, tables: Sequence[pa.Table], name: str = "corpus", counters: Mapping[str, int] | None = None
) -> Checkpoint:
    """A finished filter whose stage "documents" holds the tables."""
    payload = {"name": name}
    path = NodePath("filter", key_of(payload))
    output = NodeOutput(store, path, secrets.token_hex(6), IN_PROCESS, executor=InlineExecutor)
    receipts = [
        output.write("documents", ShardOutput({"documents.parquet": parquet_file(table)}, {}), shard)
        for shard, table in enumerate(tables)
    ]
    manifest = Manifest(
        node=path.node,
        key=path.key,
        payload=payload,
        inputs={},
        output_stages=("documents",),
        outputs=tuple(file for receipt in receipts for file in receipt.files),
        counters=dict(counters or {}),
        metrics={},
        content_digest=digest_of_receipts(path.key, receipts, ()),
        code=code_of("crawl", 1),
        resources={},
        attempt=output.attempt,
        started=0.0,
        seconds=0.0,
        cpu_seconds=0.0,
    )
    return Checkpoint(store, commit(store, manifest))


def computed(spec: Spec, inputs: Mapping[str, Checkpoint], store: Store) -> Checkpoint:
    """The node of this spec, computed by the runner in this process."""
    request = NodeRequest(
        node=spec.node,
        version=spec.version,
        spec=spec.model_dump(mode="json"),
        inputs={slot: InputKey(node=upstream.node, key=upstream.key) for slot, upstream in inputs.items()},
        resources=IN_PROCESS.model_dump(mode="json"),
    )
    return Checkpoint(store, run_node(store, request))


def rows(checkpoint: Checkpoint, name: str, stage: str | None = None) -> list[dict[str, Any]]:
    """All rows of all files of that name, in order; text as bytes where it is no UTF-8."""
    tables = [table(checkpoint, file) for file in checkpoint.files(name, stage)]
    return [row for one in tables for row in one.to_pylist()]


def table(checkpoint: Checkpoint, file: OutputFile) -> pa.Table:
    return pq.read_table(pa.BufferReader(checkpoint.read(file)))


def debian_texts(data_dir: Path, limit: int) -> list[str]:
    """Main text of the first pages of a real crawl (Debian's manuals in 30 languages)."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    texts = []
    with (data_dir / "debian" / "debian-multi.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            body = record.reader.read()
            if "html" not in (record.http_content_type or ""):
                continue
            text = extract_plain_text(body.decode("utf-8", errors="replace"), main_content=True)
            if len(text) > 200:
                texts.append(text)
            if len(texts) == limit:
                break
    return texts
