"""The scrub node: contaminated documents are dropped, and personal data gives way to placeholders.

    matches, common   where the recipe has evaluation sets: see `decontaminate.py`
    documents         a shard for every input file

The audit says which example a document was dropped for, and counts what was replaced in each that was kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ray_jobs.scrub.decontaminate import (
    RULE,
    Contamination,
    Verdict,
    find_contamination,
    hits_table,
    verdicts_of,
    without,
)
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
    contamination: Contamination | None = None


def run(spec: ScrubSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    documents = inputs["documents"]
    files = documents.files("documents.parquet")
    if not sum(file.rows for file in files):
        raise UserError(
            f"{documents.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    context, wanted = Context(spec, documents), list(range(len(files)))
    if spec.decontamination is not None and "eval_sets" in inputs:
        contamination = find_contamination(spec.decontamination, documents, inputs["eval_sets"], output)
        context, wanted = replace(context, contamination=contamination), sorted(contamination.matches)
    done = output.fan_out("documents", [{"input": i} for i in wanted], scrub, context)
    total = Counter[str]()
    for receipt in done:
        total.update(receipt.counters)
    return Outcome(
        ("documents",),
        metrics={
            "changed_share": round(total["documents_changed"] / total["documents_in"], 4),
            "replaced": sum(total[f"replaced.{kind}"] for kind in kinds_of(spec)),
            **(context.contamination.metrics if context.contamination else {}),
        },
    )


def kinds_of(spec: ScrubSpec) -> tuple[str, ...]:
    return (*spec.replace, *(spec.names.replace if spec.names else ()))


def scrub(shard: dict[str, int], context: Context) -> ShardOutput:
    """One input file without its contaminated documents and with its personal data replaced, and its audit."""
    source, contamination = context.documents, context.contamination
    file = source.files("documents.parquet")[shard["input"]]
    entered = pq.read_table(pa.BufferReader(source.read(file)))
    verdicts = verdicts_of(contamination, shard["input"]) if contamination else {}
    table, dropped = without(entered, verdicts, contamination.spec) if contamination else (entered, [])
    spec, kinds = context.spec, kinds_of(context.spec)
    more = names_of(spec.names, table["language"].to_pylist()) if spec.names else None
    scrubbed = scrub_column(table["text"], scanner(spec.replace), more)
    counts = scrubbed.counts
    audited = [*PLACEHOLDERS, *(spec.names.replace if spec.names else ())]
    column = table.schema.get_field_index("text")
    replaced = table.set_column(column, pa.field("text", pa.large_string()), scrubbed.text)
    files = {
        "documents.parquet": parquet_file(replaced),
        "audit.parquet": parquet_file(audit(entered["id"], verdicts, set(dropped), counts, audited)),
    }
    if contamination:
        files["contamination.parquet"] = parquet_file(hits_table(verdicts, entered["id"]))
    sets = Counter(name for verdict in verdicts.values() for name in {hit.set for hit in verdict.hits})
    return ShardOutput(
        files,
        {
            "documents_in": entered.num_rows,
            "documents_kept": table.num_rows,
            "documents_changed": sum(1 for count in counts if count),
            "text_bytes_in": pc.sum(pc.binary_length(entered["text"])).as_py() or 0,
            "text_bytes_kept": pc.sum(pc.binary_length(scrubbed.text)).as_py() or 0,
            **{f"replaced.{kind}": sum(count[kind] for count in counts) for kind in kinds},
            f"dropped.{RULE}": len(dropped),
            "documents_cut": len(verdicts) - len(dropped),
            **{f"contaminated.{name}": sets[name] for name in sorted(sets)},
        },
        {"samples": samples(table["id"], scrubbed.text, scrubbed.first)},
    )


def audit(
    ids: pa.ChunkedArray,
    verdicts: dict[int, Verdict],
    dropped: set[int],
    counts: list[Counter[str]],
    kinds: Sequence[str],
) -> pa.Table:
    """A row for every document that entered; `counts` are those of the documents that were kept, in order."""
    rows = range(len(ids))
    kept = iter(counts)
    count_of = [None if row in dropped else next(kept) for row in rows]
    found = [verdicts.get(row) for row in rows]
    return pa.table(
        {
            "id": ids,
            "decision": pa.array(["dropped" if row in dropped else "kept" for row in rows], pa.string()),
            "rule": pa.array([RULE if row in dropped else None for row in rows], pa.string()),
            "value": pa.array([verdict and verdict.num_ngrams for verdict in found], pa.float64()),
            "contaminated_by": pa.array([verdict and verdict.by for verdict in found], pa.string()),
            **{
                kind: pa.array([None if count is None else count[kind] for count in count_of], pa.int32())
                for kind in kinds
            },
        }
    )


def samples(ids: pa.ChunkedArray, text: pa.Array, first: list[Span | None]) -> list[dict[str, Any]]:
    """Surroundings of the first placeholder in the first documents that have one; what it hides is shown nowhere."""
    shown = []
    for row, span in [(row, span) for row, span in enumerate(first) if span][:NUM_SAMPLES]:
        data = memoryview(text[row].as_buffer())
        window = bytes(data[max(0, span.start - SAMPLE_BYTES) : span.start + SAMPLE_BYTES])
        shown.append({"id": ids[row].as_py(), "kind": span.kind, "text": window.decode(errors="replace")})
    return shown
