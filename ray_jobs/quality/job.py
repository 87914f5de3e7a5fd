"""The quality node: each document's perplexity under a language model, its bucket, and what that decides.

    scores      a shard for every input file: perplexities, and their histogram
    thresholds  one shard: where head and middle end in each language, from the histograms or as the spec says
    documents   a shard for every input file: the documents that are kept, and an audit of all

Scores stand apart from decisions: `rules.decide` over rows of the audit says what other limits or buckets would keep,
without a text. A shard holds one input file and the models of its languages; no process holds a number for each
document of the whole corpus.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.quality import Limits, QualitySpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.quality.histograms import add, histogram, percentile, with_edges
from ray_jobs.quality.rules import Scores, bucket_of, decide
from ray_jobs.quality.scoring import perplexities

SCORES = pa.schema([("id", pa.string()), ("language", pa.string()), ("perplexity", pa.float32())])
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("decision", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("source", pa.string()),
        ("perplexity", pa.float32()),
        ("bucket", pa.string()),
    ]
)


@dataclass(frozen=True)
class Context:
    """What the shards of all stages share; each stage fills in what the next one reads."""

    spec: QualitySpec
    store: Store
    documents: tuple[OutputFile, ...]
    language_model: Checkpoint | None
    scores: tuple[OutputFile, ...] = ()
    thresholds: OutputFile | None = None

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.store, file)), columns=columns)


def run(spec: QualitySpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    source = inputs["documents"]
    files = tuple(source.files("documents.parquet"))
    if not sum(file.rows for file in files):
        raise UserError(
            f"{source.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    context = Context(spec, source.store, files, inputs.get("language_model"))

    scored = output.fan_out("scores", [{"input": i} for i in range(len(files))], score, context)
    # What could not be scored cannot be judged: a quarantined file is left out of what follows.
    context = replace(
        context,
        documents=tuple(files[receipt.shard] for receipt in scored),
        scores=tuple(named(receipt, "scores.parquet") for receipt in scored),
    )

    bounded = output.standing("thresholds") or output.write("thresholds", bound(context, scored))
    context = replace(context, thresholds=named(bounded, "thresholds.json"))

    judged = output.fan_out("documents", [{"input": i} for i in range(len(context.documents))], judge, context)
    total = Counter[str]()
    for receipt in judged:
        total.update(receipt.counters)
    limits = bounded.info["limits"]
    return Outcome(
        ("scores", "thresholds", "documents"),
        counters={**dict(total), "languages_with_limits": len(limits)},
        metrics={
            "kept_share": round(total["documents_kept"] / total["documents_in"], 4),
            "scored_share": round(total["documents_scored"] / total["documents_in"], 4),
            **{
                f"{language}_{bucket}": round(bounds[bucket], 1)
                for language, bounds in sorted(limits.items())
                for bucket in ("head", "middle")
            },
        },
    )


def named(receipt: Receipt, name: str) -> OutputFile:
    return next(file for file in receipt.files if file.name == name)


def score(shard: dict[str, int], context: Context) -> ShardOutput:
    """Perplexities of one input file's documents, and how they are distributed."""
    table = context.read(context.documents[shard["input"]], ["id", "language", "text"])
    perplexity = perplexities(table, context.language_model, context.spec.scorer)
    languages = table["language"].cast(pa.string())
    scores = pa.table([table["id"].cast(pa.string()), languages, perplexity], schema=SCORES)
    counted = histogram(languages, scores["perplexity"])
    return ShardOutput(
        {"scores.parquet": parquet_file(scores), "histogram.parquet": parquet_file(counted)},
        {"documents": table.num_rows, "documents_scored": table.num_rows - perplexity.null_count},
    )


def bound(context: Context, scored: list[Receipt]) -> ShardOutput:
    """Where the buckets end in each language."""
    spec = context.spec
    counted = add(context.read(named(receipt, "histogram.parquet")) for receipt in scored)
    limits = dict(spec.limits)
    for language in sorted(set(counted["language"].to_pylist()) - set(limits)):
        of_language = counted.filter(pc.field("language") == language)
        bins, documents = of_language["bin"].to_numpy(), of_language["documents"].to_numpy()
        head, middle = (percentile(bins, documents, p) for p in (spec.head_percentile, spec.middle_percentile))
        limits[language] = Limits(head=head, middle=middle)
    written = {language: bounds.model_dump() for language, bounds in sorted(limits.items())}
    return ShardOutput(
        {
            "thresholds.json": File((json.dumps(written, indent=1) + "\n").encode()),
            "histogram.parquet": parquet_file(with_edges(counted)),
        },
        {"languages": len(written)},
        {"limits": written},
    )


def read_limits(data: bytes) -> dict[str, Limits]:
    return {language: Limits.model_validate(bounds) for language, bounds in json.loads(data).items()}


def judge(shard: dict[str, int], context: Context) -> ShardOutput:
    """One input file's documents without those that are dropped, and the audit of all of them."""
    assert context.thresholds is not None
    limits = read_limits(read_checked(context.store, context.thresholds))
    table = context.read(context.documents[shard["input"]])
    scores = context.read(context.scores[shard["input"]])
    rows = [
        Scores(language, perplexity)
        for language, perplexity in zip(scores["language"].to_pylist(), scores["perplexity"].to_pylist(), strict=True)
    ]
    verdicts = [decide(row, limits, context.spec) for row in rows]
    buckets = [bucket_of(row, limits) for row in rows]
    is_kept = np.array([verdict is None for verdict in verdicts], dtype=bool)
    kept = table.filter(pa.array(is_kept))
    audit = pa.table(
        [
            scores["id"],
            pa.array(["dropped" if verdict else "kept" for verdict in verdicts], pa.string()),
            *(
                pa.array([getattr(verdict, name) if verdict else None for verdict in verdicts], AUDIT.field(name).type)
                for name in ("rule", "value", "threshold", "source")
            ),
            scores["perplexity"],
            pa.array(buckets, pa.string()),
        ],
        schema=AUDIT,
    )
    dropped = Counter(f"dropped.{verdict.rule}" for verdict in verdicts if verdict)
    return ShardOutput(
        {"documents.parquet": parquet_file(kept), "audit.parquet": parquet_file(audit)},
        {
            "documents_in": table.num_rows,
            "documents_kept": kept.num_rows,
            "documents_scored": table.num_rows - scores["perplexity"].null_count,
            "text_bytes_in": text_bytes(table),
            "text_bytes_kept": text_bytes(kept),
            **dropped,
            **{f"bucket.{name}": number for name, number in sorted(Counter(filter(None, buckets)).items())},
        },
    )


def text_bytes(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table["text"])).as_py() or 0
