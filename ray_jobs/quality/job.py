"""The quality node: each document's perplexity and bucket, its classifiers' probabilities, what it holds of word lists,
and what these decide.

    scores      a shard for every input file: the scores, and histograms of them
    thresholds  one shard: where head and middle end in each language and what the probabilities are compared with, from
                the histograms, the classifiers' nodes or as the spec says
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
from ray_jobs.quality import odds
from ray_jobs.quality.classifier_job import chosen_threshold
from ray_jobs.quality.histograms import add, histogram, percentile, with_edges
from ray_jobs.quality.lists import Lists, terms_of
from ray_jobs.quality.measures import MEASURED, classified, listed
from ray_jobs.quality.rules import Scores, Thresholds, bucket_of, decide
from ray_jobs.quality.scoring import perplexities

SCORES = pa.schema([("id", pa.string()), ("language", pa.string()), ("perplexity", pa.float32()), *MEASURED])
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
        *MEASURED,
    ]
)


@dataclass(frozen=True)
class Context:
    """What the shards of all stages share; each stage fills in what the next one reads."""

    spec: QualitySpec
    store: Store
    documents: tuple[OutputFile, ...]
    language_model: Checkpoint | None
    classifier: Checkpoint | None = None
    toxicity: Checkpoint | None = None
    words: Lists | None = None
    scores: tuple[OutputFile, ...] = ()
    thresholds: OutputFile | None = None
    probabilities: OutputFile | None = None

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
    context = Context(
        spec,
        source.store,
        files,
        inputs.get("language_model"),
        inputs.get("classifier"),
        inputs.get("toxicity"),
        terms_of(spec.toxic_words) if spec.toxic_words else None,
    )

    scored = output.fan_out("scores", [{"input": i} for i in range(len(files))], score, context)
    # What could not be scored cannot be judged: a quarantined file is left out of what follows.
    context = replace(
        context,
        documents=tuple(files[receipt.shard] for receipt in scored),
        scores=tuple(named(receipt, "scores.parquet") for receipt in scored),
    )

    bounded = output.standing("thresholds") or output.write("thresholds", bound(context, scored))
    context = replace(
        context,
        thresholds=named(bounded, "thresholds.json"),
        probabilities=named(bounded, "probabilities.json"),
    )

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
            **{f"{name}_threshold": value for name, value in bounded.info["probabilities"].items()},
        },
    )


def named(receipt: Receipt, name: str) -> OutputFile:
    return next(file for file in receipt.files if file.name == name)


def score(shard: dict[str, int], context: Context) -> ShardOutput:
    """Perplexities of one input file's documents, and how they are distributed."""
    table = context.read(context.documents[shard["input"]], ["id", "language", "text"])
    perplexity = perplexities(table, context.language_model, context.spec.scorer)
    languages = table["language"].cast(pa.string())
    measured = {
        "quality": classified(table, context.classifier),
        "toxicity": classified(table, context.toxicity),
        **listed(table, context.words, context.spec.toxic_words),
    }
    scores = pa.table(
        [table["id"].cast(pa.string()), languages, perplexity, *(measured[name] for name, _ in MEASURED)], schema=SCORES
    )
    counted = histogram(languages, scores["perplexity"])
    quality = odds.histogram(scores["quality"].drop_null().to_numpy())
    return ShardOutput(
        {
            "scores.parquet": parquet_file(scores),
            "histogram.parquet": parquet_file(counted),
            "quality_histogram.parquet": parquet_file(quality),
        },
        {"documents": table.num_rows, "documents_scored": table.num_rows - perplexity.null_count},
    )


def bound(context: Context, scored: list[Receipt]) -> ShardOutput:
    """Where the buckets end in each language, and what probabilities are compared with."""
    spec = context.spec
    compared = {
        "quality": threshold_of("quality_threshold", spec.quality_threshold, context.classifier),
        "toxicity": threshold_of("toxicity_threshold", spec.toxicity_threshold, context.toxicity),
    }
    if spec.quality_top_share is not None:
        histograms = [context.read(named(receipt, "quality_histogram.parquet")) for receipt in scored]
        compared["quality"] = odds.top_threshold(histograms, spec.quality_top_share)
        if compared["quality"] is None:
            raise UserError("quality.quality_top_share is set, and no classifier scores: add the node `classifier`")
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
            "probabilities.json": File((json.dumps(compared, indent=1) + "\n").encode()),
            "histogram.parquet": parquet_file(with_edges(counted)),
        },
        {"languages": len(written)},
        {"limits": written, "probabilities": {name: value for name, value in compared.items() if value is not None}},
    )


def threshold_of(field: str, wanted: float | str | None, node: Checkpoint | None) -> float | None:
    """The threshold that the spec names or leaves to the classifier's node; None where it names none."""
    if wanted is None:
        return None
    if node is None:
        raise UserError(f"quality.{field} is {wanted!r}, and no classifier fills its slot: add its node, or set null")
    if wanted != "chosen":
        return float(wanted)
    chosen = chosen_threshold(node)
    if chosen is None:
        raise UserError(
            f"quality.{field} is 'chosen', and {node.node} {node.key[:16]} was given as weights without documents to "
            "choose a threshold by: fill its slots, or write a number"
        )
    return chosen


def read_limits(data: bytes) -> dict[str, Limits]:
    return {language: Limits.model_validate(bounds) for language, bounds in json.loads(data).items()}


def judge(shard: dict[str, int], context: Context) -> ShardOutput:
    """One input file's documents without those that are dropped, and the audit of all of them."""
    assert context.thresholds is not None
    assert context.probabilities is not None
    limits = read_limits(read_checked(context.store, context.thresholds))
    thresholds = Thresholds(limits, **json.loads(read_checked(context.store, context.probabilities)))
    table = context.read(context.documents[shard["input"]])
    scores = context.read(context.scores[shard["input"]])
    columns = ("language", "perplexity", *(name for name, _ in MEASURED))
    rows = [Scores(*row) for row in zip(*(scores[name].to_pylist() for name in columns), strict=True)]
    verdicts = [decide(row, thresholds, context.spec) for row in rows]
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
            *(scores[name] for name, _ in MEASURED),
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
            "documents_classified": table.num_rows - scores["quality"].null_count,
            "documents_with_toxic_words": sum(1 for row in rows if row.toxic_terms),
            "text_bytes_in": text_bytes(table),
            "text_bytes_kept": text_bytes(kept),
            **dropped,
            **{f"bucket.{name}": number for name, number in sorted(Counter(filter(None, buckets)).items())},
        },
    )


def text_bytes(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table["text"])).as_py() or 0
