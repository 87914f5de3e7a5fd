"""The scrub node: personal data gives way to placeholders; the audit counts what was replaced in each document.

documents   a shard for every input file
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.scrub import ScrubSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import Outcome, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.scrub.names import names_of
from ray_jobs.scrub.patterns import PLACEHOLDERS
from ray_jobs.scrub.replace import scrub_column
from ray_jobs.scrub.scanner import Span, scanner

NUM_SAMPLES = 5
SAMPLE_BYTES = 80
"""Shown on both sides of a placeholder."""


@dataclass(frozen=True)
class Context:
    spec: ScrubSpec
    documents: Checkpoint


def run(spec: ScrubSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    documents = inputs["documents"]
    files = documents.files("documents.parquet")
    if not sum(file.rows for file in files):
        raise UserError(
            f"{documents.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    done = output.fan_out("documents", [{"input": i} for i in range(len(files))], scrub, Context(spec, documents))
    total = Counter[str]()
    for receipt in done:
        total.update(receipt.counters)
    return Outcome(
        ("documents",),
        metrics={
            "changed_share": round(total["documents_changed"] / total["documents_in"], 4),
            "replaced": sum(total[f"replaced.{kind}"] for kind in kinds_of(spec)),
        },
    )


def kinds_of(spec: ScrubSpec) -> tuple[str, ...]:
    return (*spec.replace, *(spec.names.replace if spec.names else ()))


def scrub(shard: dict[str, int], context: Context) -> ShardOutput:
    """One input file with its personal data replaced, and its audit."""
    source = context.documents
    file = source.files("documents.parquet")[shard["input"]]
    table = pq.read_table(pa.BufferReader(source.read(file)))
    spec, kinds = context.spec, kinds_of(context.spec)
    more = names_of(spec.names, table["language"].to_pylist()) if spec.names else None
    scrubbed = scrub_column(table["text"], scanner(spec.replace), more)
    counts = [Counter(span.kind for span in spans) for spans in scrubbed.spans]
    audited = [*PLACEHOLDERS, *(spec.names.replace if spec.names else ())]
    column = table.schema.get_field_index("text")
    replaced = table.set_column(column, pa.field("text", pa.large_string()), scrubbed.text)
    audit = pa.table(
        {
            "id": table["id"],
            "decision": pa.array(["kept"] * table.num_rows, pa.string()),
            **{kind: pa.array([count[kind] for count in counts], pa.int32()) for kind in audited},
        }
    )
    return ShardOutput(
        {"documents.parquet": parquet_file(replaced), "audit.parquet": parquet_file(audit)},
        {
            "documents_in": table.num_rows,
            "documents_kept": table.num_rows,
            "documents_changed": sum(1 for count in counts if count),
            "text_bytes_in": pc.sum(pc.binary_length(table["text"])).as_py() or 0,
            "text_bytes_kept": pc.sum(pc.binary_length(scrubbed.text)).as_py() or 0,
            **{f"replaced.{kind}": sum(count[kind] for count in counts) for kind in kinds},
        },
        {"samples": samples(table["id"], scrubbed.text, scrubbed.spans)},
    )


def samples(ids: pa.ChunkedArray, text: pa.Array, spans: list[list[Span]]) -> list[dict[str, Any]]:
    """Surroundings of the first placeholder in the first documents that have one; what it hides is shown nowhere."""
    shown = []
    for row in [row for row, found in enumerate(spans) if found][:NUM_SAMPLES]:
        data: bytes = text[row].cast(pa.large_binary()).as_py()
        first = spans[row][0]
        window = data[max(0, first.start - SAMPLE_BYTES) : first.start + SAMPLE_BYTES]
        shown.append({"id": ids[row].as_py(), "kind": first.kind, "text": window.decode(errors="replace")})
    return shown
