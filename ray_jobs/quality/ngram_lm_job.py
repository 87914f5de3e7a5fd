"""The ngram-lm node: language models of a reference, one a language, as ARPA files.

    counts   a shard for every input file: its n-grams in each language, as a sorted run
    models   a shard for every language: the runs added up, smoothed and written
    heldout  a shard for every input file: what the models make of documents that they were not trained on

A shard of `counts` holds one input file. One of `models` holds the distinct n-grams of a language's whole sample, about
200 bytes each, which `sample_bytes` bounds; whoever scores by a model holds it too, at 16 to 48 bytes for each n-gram
that is kept. A larger sample could be smoothed in parts by last word; contexts would then have to be exchanged between
the parts once.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.quality import NgramLmSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.sampling import places
from ray_jobs.quality.arpa import arpa
from ray_jobs.quality.counts import SPECIAL, Run, count_run, from_tables, merged, to_tables
from ray_jobs.quality.kneser_ney import estimate
from ray_jobs.quality.scoring import MODEL_SUFFIX, rows_in, score_texts
from ray_jobs.quality.sentences import normalise

BATCH_BYTES = 32 << 20
"""Text that is counted at once, at about 20 bytes of memory for each of its own."""
WORDS_SUFFIX, NGRAMS_SUFFIX = ".words.parquet", ".ngrams.parquet"
log = logging.getLogger("headrace")


@dataclass(frozen=True)
class Context:
    spec: NgramLmSpec
    documents: Checkpoint
    sample_share: float
    runs: tuple[OutputFile, ...] = ()
    models: tuple[OutputFile, ...] = ()

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.documents.store, file)), columns=columns)


def run(spec: NgramLmSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    documents = inputs["documents"]
    files = documents.files("documents.parquet")
    num_bytes = text_bytes_of(documents)
    context = Context(spec, documents, spec.sample_bytes / num_bytes if num_bytes else 0.0)
    shards = [{"input": i} for i in range(len(files))]

    counted = output.fan_out("counts", shards, count, context)
    for language in spec.languages:
        if not sum(receipt.counters.get(f"{language}.words", 0) for receipt in counted):
            raise UserError(
                f"{documents.node} has no word in {language!r} to train a language model on: leave it out of "
                "ngram-lm.languages, or give a reference that says of its documents that they are in it"
            )
    context = replace(context, runs=tuple(file for receipt in counted for file in receipt.files))

    trained = output.fan_out("models", [{"language": language} for language in spec.languages], train, context)
    if len(trained) < len(spec.languages):
        raise NodeFailed(
            f"{len(spec.languages) - len(trained)} of {len(spec.languages)} models failed: documents in their "
            "languages would go unscored. See attempts/<id>/failures/, mend the cause and run again"
        )
    for receipt in trained:
        for order in receipt.info["fallback_orders"]:
            log.warning(
                "%s has too few %d-grams to tell their discounts: they are lmplz's fall-back values",
                receipt.info["language"],
                order,
            )
    context = replace(context, models=tuple(file for receipt in trained for file in receipt.files))

    held_out = output.fan_out("heldout", shards, measure, context) if spec.heldout_share else []
    return Outcome(("models",), metrics=headline(spec, counted, trained, held_out))


def text_bytes_of(documents: Checkpoint) -> int:
    """Of a node that kept documents, or of one that brought them."""
    counters = documents.manifest.counters
    return counters["text_bytes_kept"] if "text_bytes_kept" in counters else counters["text_bytes"]


def parts(table: pa.Table, context: Context) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(to train on, held out) of a table with `text`: a choice by hash of it, whatever the shards, so that no copy of
    a text that is trained on is held out."""
    spec, texts = context.spec, table["text"].cast(pa.large_binary()).to_pylist()
    chosen = places(texts, "ngram-lm-sample", spec.seed) < context.sample_share
    held_out = places(texts, "ngram-lm-heldout", spec.seed) < spec.heldout_share
    return chosen & ~held_out, chosen & held_out


def texts_in(
    table: pa.Table, chosen: npt.NDArray[np.bool_], languages: tuple[str, ...]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(language, its chosen texts)"""
    for language in languages:
        rows = rows_in(table, language)
        yield language, table["text"].take(pa.array(rows[chosen[rows]]))


def count(shard: dict[str, int], context: Context) -> ShardOutput:
    """The runs of one input file's documents."""
    spec = context.spec
    table = context.read(context.documents.files("documents.parquet")[shard["input"]], ["id", "language", "text"])
    to_train, _ = parts(table, context)
    files: dict[str, File] = {}
    counters: dict[str, int] = {}
    for language, text in texts_in(table, to_train, spec.languages):
        counted = merged((run_of(batch, spec) for batch in batches(text)), spec.order)
        words, ngrams = to_tables(counted)
        files[language + WORDS_SUFFIX], files[language + NGRAMS_SUFFIX] = parquet_file(words), parquet_file(ngrams)
        counters |= {f"{language}.documents": len(text), f"{language}.words": int(counted.counts.sum())}
    return ShardOutput(files, counters)


def batches(text: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """The texts in order, in slices of BATCH_BYTES and the last text's rest."""
    sizes = pc.binary_length(text.cast(pa.large_binary())).to_numpy()
    number = np.cumsum(sizes) // BATCH_BYTES
    bounds = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
    for first, end in itertools.pairwise([*bounds, len(text)]):
        yield text.slice(first, end - first)


def run_of(text: pa.ChunkedArray, spec: NgramLmSpec) -> Run:
    normalised, _ = normalise(*text_buffers(text), spec.tokens)
    return count_run(normalised, spec.order)


def train(shard: dict[str, str], context: Context) -> ShardOutput:
    """One language's model."""
    spec, language = context.spec, shard["language"]
    together = merged(runs_of(language, context), spec.order)
    least_counts = tuple(spec.least_count(order) for order in range(1, spec.order + 1))
    model = estimate(together, len(SPECIAL) + len(together.words), least_counts)
    sizes = [len(order.logprob) for order in model.orders]
    return ShardOutput(
        {language + MODEL_SUFFIX: File(arpa(model, together.words), sum(sizes))},
        {f"{language}.{order}_grams": size for order, size in enumerate(sizes, start=1)},
        {
            "language": language,
            "discounts": [discounts.by_count for discounts in model.discounts],
            "fallback_orders": [k for k, discounts in enumerate(model.discounts, start=1) if discounts.is_fallback],
            "num_counted": model.num_counted,
        },
    )


def runs_of(language: str, context: Context) -> Iterator[Run]:
    words = [file for file in context.runs if file.name == language + WORDS_SUFFIX]
    ngrams = [file for file in context.runs if file.name == language + NGRAMS_SUFFIX]
    for of_words, of_ngrams in zip(words, ngrams, strict=True):
        yield from_tables(context.read(of_words), context.read(of_ngrams))


def measure(shard: dict[str, int], context: Context) -> ShardOutput:
    """Log-probability of one input file's held-out documents, by language."""
    spec = context.spec
    table = context.read(context.documents.files("documents.parquet")[shard["input"]], ["id", "language", "text"])
    _, held_out = parts(table, context)
    models = {file.name: file for file in context.models}
    counters: dict[str, int] = {}
    logprob: dict[str, float] = {}
    for language, text in texts_in(table, held_out, spec.languages):
        scores = score_texts(text, context.documents.store, models[language + MODEL_SUFFIX], spec)
        counters |= {
            f"{language}.documents": len(text),
            f"{language}.words": int(scores.num_words.sum()),
            f"{language}.unknown": int(scores.num_unknown.sum()),
        }
        logprob[language] = float(scores.logprob.sum())
    return ShardOutput({}, counters, {"logprob": logprob})


def headline(
    spec: NgramLmSpec, counted: list[Receipt], trained: list[Receipt], held_out: list[Receipt]
) -> dict[str, float | int | str]:
    def total(receipts: list[Receipt], name: str) -> int:
        return sum(receipt.counters.get(name, 0) for receipt in receipts)

    metrics: dict[str, float | int | str] = {}
    for language in spec.languages:
        metrics[f"{language}_documents"] = total(counted, f"{language}.documents")
        metrics[f"{language}_words"] = total(counted, f"{language}.words")
        metrics[f"{language}_ngrams"] = sum(
            total(trained, f"{language}.{order}_grams") for order in range(1, spec.order + 1)
        )
        if num_words := total(held_out, f"{language}.words"):
            logprob = sum(receipt.info["logprob"][language] for receipt in held_out)
            metrics[f"{language}_heldout_perplexity"] = round(10 ** (-logprob / num_words), 2)
            metrics[f"{language}_heldout_unknown_share"] = round(total(held_out, f"{language}.unknown") / num_words, 4)
    return metrics
