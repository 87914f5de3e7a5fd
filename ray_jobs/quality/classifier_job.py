"""The classifier node: a linear classifier with its ROC curve and a threshold, trained here or given as weights.

    sample      a shard for every input file: its documents that are trained on or held out
    classifier  one shard: classifier.safetensors, the same as classifier.bin for fastText's own tools; heldout.parquet
                (each held-out document's score), roc.parquet, and threshold.json with its confusion table

The sample is bounded, so that one process holds it; training takes one core. Weights without slots are only checked and
converted: there is no curve then, and no threshold; nor are there where the documents held out have one label.
"""

import io
import json
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from configs.base import Resources
from configs.classifier import ClassifierSpec, ThresholdSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.pinned import fetched
from ray_jobs.files.sampling import places
from ray_jobs.quality import roc
from ray_jobs.quality.features import Features
from ray_jobs.quality.linear import LinearModel, train
from ray_jobs.quality.weights import fasttext_of, read_model, safetensors_of

REFERENCE, CRAWL, LABELS = "reference", "crawl", "labels"
log = logging.getLogger("headrace")

STAGE, WEIGHTS, THRESHOLD = "classifier", "classifier.safetensors", "threshold.json"
# Text as stored (Parquet, zstd) takes about so much less than as it is read; where a node does not count its text.
COMPRESSION = 3
CURVE_POINTS = 200
"""Of the curve in the receipt, which the report draws; roc.parquet holds all."""

SAMPLE = pa.schema([("id", pa.string()), ("label", pa.string()), ("heldout", pa.bool_()), ("text", pa.large_binary())])


@dataclass(frozen=True)
class Source:
    """A slot's documents, and the share of them that the sample takes."""

    documents: Checkpoint
    label: str | None
    """Of all of them; None where they bring their own."""
    share: float

    @property
    def files(self) -> list[OutputFile]:
        return self.documents.files("documents.parquet")


@dataclass(frozen=True)
class Context:
    spec: ClassifierSpec
    sources: dict[str, Source]


def run(spec: ClassifierSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    sources = sources_of(spec, inputs)
    context = Context(spec, sources)
    shards = [{"slot": slot, "input": i} for slot, source in sources.items() for i in range(len(source.files))]
    sampled = output.fan_out("sample", shards, sample, context) if shards else []
    done = output.standing(STAGE)
    if done is None:
        done = output.write(STAGE, made(spec, [receipt.files[0] for receipt in sampled], output))
    return Outcome((STAGE,), metrics=done.info["metrics"])


def sources_of(spec: ClassifierSpec, inputs: dict[str, Checkpoint]) -> dict[str, Source]:
    """What is trained on and measured; a UserError where the slots are not one of the ways there are."""
    given = sorted(inputs)
    if not given and spec.weights:
        return {}
    if given == [LABELS]:
        total = text_bytes(inputs[LABELS])
        return {LABELS: Source(inputs[LABELS], None, min(1.0, 2 * spec.sample_bytes / max(1, total)))}
    if given == [CRAWL, REFERENCE]:
        return {
            slot: Source(inputs[slot], slot, min(1.0, spec.sample_bytes / max(1, text_bytes(inputs[slot]))))
            for slot in (REFERENCE, CRAWL)
        }
    raise UserError(
        f"classifier has the slots {', '.join(given) or 'none'}: fill either `labels` or both `reference` and `crawl` "
        "(none with weights), and empty the others by inputs: {slot: null}"
    )


def text_bytes(documents: Checkpoint) -> int:
    """Of a node that judges documents, or of one that brings them from outside."""
    counters = documents.manifest.counters
    stored = sum(file.bytes for file in documents.files("documents.parquet"))
    return counters.get("text_bytes_kept", counters.get("text_bytes", COMPRESSION * stored))


def sample(shard: dict[str, Any], context: Context) -> ShardOutput:
    """Those of one input file's documents that the sample takes, with label and part."""
    source, spec = context.sources[shard["slot"]], context.spec
    file = source.files[shard["input"]]
    columns = ["id", "text"] if source.label else ["id", "text", "label"]
    data = pq.ParquetFile(pa.BufferReader(source.documents.read(file)))
    if "label" in columns and "label" not in data.schema_arrow.names:
        raise UserError(
            f"{source.documents.node}'s documents have no column `label`: name a node whose have, as labels"
        )
    table = data.read(columns=columns)
    ids = table["id"].to_pylist()
    chosen = np.flatnonzero(places(ids, "classifier-sample", spec.seed) < source.share)
    taken = table.take(pa.array(chosen))
    # By the text, so that no copy of a text that is trained on is measured, whatever its source.
    texts = taken["text"].cast(pa.large_binary()).to_pylist()
    heldout = places(texts, "classifier-heldout", spec.seed) < spec.heldout_share
    if source.label:
        label: pa.Array | pa.ChunkedArray = pa.array([source.label] * taken.num_rows, pa.string())
    else:
        label = taken["label"].cast(pa.string())
    # Weights are trained already: all that is sampled measures them.
    part = np.ones_like(heldout) if spec.weights else heldout
    sampled = pa.table(
        [taken["id"].cast(pa.string()), label, pa.array(part), taken["text"].cast(pa.large_binary())], schema=SAMPLE
    )
    return ShardOutput({"sample.parquet": parquet_file(sampled)}, {"texts": sampled.num_rows})


def made(spec: ClassifierSpec, files: list[OutputFile], output: NodeOutput) -> ShardOutput:
    """The classifier's files from the sample's."""
    tables = [pq.read_table(pa.BufferReader(output.read(file))) for file in files]
    texts = pa.concat_tables([SAMPLE.empty_table(), *tables])
    heldout = texts["heldout"].to_numpy()
    trained, measured = texts.filter(pa.array(~heldout)), texts.filter(pa.array(heldout))
    model = given(spec) if spec.weights else fitted(spec, trained)
    if spec.positive not in model.labels:
        raise UserError(
            f"classifier.positive is {spec.positive!r}, and the labels are {', '.join(map(repr, model.labels))}: name "
            "one of them"
        )
    counters = {
        "labels": len(model.labels),
        "words": len(model.vocabulary),
        "rows": len(model.logits),
        "texts_trained": 0 if spec.weights else trained.num_rows,
        "texts_heldout": measured.num_rows,
    }
    written = {WEIGHTS: File(safetensors_of(model)), "classifier.bin": File(fasttext_of(model))}
    is_positive = np.array([label == spec.positive for label in measured["label"].to_pylist()], dtype=bool)
    if not files or is_positive.all() or not is_positive.any():
        if files:
            log.warning(
                "%d of %d held-out documents are %r, which gives no ROC curve and no threshold: raise "
                "classifier.heldout_share or classifier.sample_bytes, or check classifier.positive",
                is_positive.sum(),
                len(is_positive),
                spec.positive,
            )
        return ShardOutput(written, counters, {"metrics": {}})
    evaluation = evaluated(spec, model, measured, is_positive)
    files_too = {
        "heldout.parquet": parquet_file(evaluation.scores),
        "roc.parquet": parquet_file(curve_table(evaluation.curve)),
        THRESHOLD: File((json.dumps(evaluation.chosen(), indent=1) + "\n").encode()),
    }
    return ShardOutput(written | files_too, counters, evaluation.info())


def given(spec: ClassifierSpec) -> LinearModel:
    assert spec.weights is not None
    with fetched(spec.weights).open("rb") as file:
        return read_model(file, spec.weights.url, spec.lowercase)


def fitted(spec: ClassifierSpec, texts: pa.Table) -> LinearModel:
    names = texts["label"].to_pylist()
    counts = Counter(names)
    labels = tuple(sorted(counts))
    if len(labels) < 2:
        raise UserError(
            f"classifier has texts of {len(labels)} label{'s'[: len(labels) != 1]} to train on: it needs two or more, "
            "so take more documents or raise classifier.sample_bytes"
        )
    features = Features(spec.word_ngrams, spec.num_buckets, spec.min_characters, spec.max_characters, spec.lowercase)
    return train(
        texts["text"],
        np.array([labels.index(name) for name in names], dtype=np.int64),
        labels,
        features,
        min_word_count=spec.min_word_count,
        max_words=spec.max_words,
        dimension=spec.dimension,
        epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
    )


@dataclass(frozen=True)
class Evaluation:
    scores: pa.Table
    """id, label and score of each held-out document."""
    curve: roc.Roc
    threshold: float

    def chosen(self) -> dict[str, Any]:
        confusion = self.curve.at(self.threshold)
        return {
            "threshold": self.threshold,
            "recall": round(confusion.recall, 4),
            "precision": round(confusion.precision, 4),
            "auc": round(self.curve.auc, 4),
            "confusion": asdict(confusion),
        }

    def info(self) -> dict[str, Any]:
        thin, chosen = self.curve.thinned(CURVE_POINTS), self.chosen()
        points = zip(thin.false_positive_rate.tolist(), thin.recall.tolist(), strict=True)
        return {
            "metrics": {name: chosen[name] for name in ("auc", "threshold", "recall", "precision")},
            "confusion": chosen["confusion"],
            "curve": [(round(a, 5), round(b, 5)) for a, b in points],
        }


def evaluated(
    spec: ClassifierSpec, model: LinearModel, heldout: pa.Table, is_positive: npt.NDArray[np.bool_]
) -> Evaluation:
    scores = model.probabilities(heldout["text"], spec.positive)
    curve = roc.roc(scores, is_positive)
    table = pa.table({"id": heldout["id"], "label": heldout["label"], "score": pa.array(scores, pa.float32())})
    return Evaluation(table, curve, threshold_of(spec.threshold, curve, scores[~is_positive]))


def threshold_of(wanted: ThresholdSpec, curve: roc.Roc, negatives: npt.NDArray[np.float32]) -> float:
    if wanted.recall is not None:
        return roc.threshold_for_recall(curve, wanted.recall)
    if wanted.precision is not None:
        return roc.threshold_for_precision(curve, wanted.precision)
    assert wanted.kept_share is not None
    return roc.threshold_for_kept_share(negatives, wanted.kept_share)


def curve_table(curve: roc.Roc) -> pa.Table:
    return pa.table(
        {
            "threshold": pa.array(curve.thresholds, pa.float64()),
            "true_positives": pa.array(curve.true_positives, pa.int64()),
            "false_positives": pa.array(curve.false_positives, pa.int64()),
        }
    )


def classifier_of(node: Checkpoint) -> LinearModel:
    """The classifier that a finished node holds; read once a process."""
    return _read_classifier(node.store.url, node.file(WEIGHTS))


@lru_cache(maxsize=4)
def _read_classifier(store_url: str, file: OutputFile) -> LinearModel:
    store = open_store(store_url)
    return read_model(io.BytesIO(read_checked(store, file)), store.url_of(file.path))


def positive_of(node: Checkpoint) -> str:
    """The label whose probability is its score."""
    positive: str = node.manifest.payload["spec"]["positive"]
    return positive


def chosen_threshold(node: Checkpoint) -> float | None:
    """None where the node had nothing to choose it by."""
    found = node.files(THRESHOLD)
    return float(json.loads(node.read(found[0]))["threshold"]) if found else None
