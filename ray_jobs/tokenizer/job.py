"""The node `tokenizer`: a vocabulary trained on a sample of the documents, and what it does on text that it never saw.

    languages  a shard for every input file: how much text of each language it holds
    words      a shard for every input file: the distinct words of its part of the sample with their counts, and its
               held-out documents
    tokenizer  one shard: the files that transformers and sentencepiece load
    beside     a shard for every other kind that is trained only to be measured
    measures   one shard: measures.json, see `measures.py`

Nothing holds the texts of the sample: training needs its distinct words. `tokens_job` encodes the documents.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.tokenizer import Kind, TokenizerSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.sampling import places
from ray_jobs.tokenizer import balance, counting, kinds
from ray_jobs.tokenizer.balance import LanguageText, Share
from ray_jobs.tokenizer.counting import WordCounter
from ray_jobs.tokenizer.documents import DocumentFile, files_of, nodes_of, sources_of, texts_of
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.measures import Measured, measure, others_of
from ray_jobs.tokenizer.merging import Words

HELD_OUT = "heldout.parquet"
OUTPUTS = ("tokenizer", "measures")

log = logging.getLogger("headrace")


@dataclass(frozen=True)
class Context:
    spec: TokenizerSpec
    files: tuple[DocumentFile, ...]
    store: Store
    shares: dict[str, Share] = field(default_factory=dict)
    words: tuple[OutputFile, ...] = ()
    """What the stage `words` left."""


def run(spec: TokenizerSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    made, measured = output.standing("tokenizer"), output.standing("measures")
    if made is None or measured is None:
        measured = computed(spec, sources_of(inputs), output)
    return Outcome(OUTPUTS, metrics=measured.info["metrics"])


def computed(spec: TokenizerSpec, sources: dict[str, Checkpoint], output: NodeOutput) -> Receipt:
    """Trains and measures; the receipt of the measures."""
    context = Context(spec, tuple(files_of(sources)), output.store)
    shards = [{"input": i} for i in range(len(context.files))]
    receipts = output.fan_out("languages", shards, languages, context)
    corpus = balance.added_up(receipt.info["languages"] for receipt in receipts)
    context = replace(
        context, shares=balance.shares(corpus, spec.sample_bytes, spec.language_alpha, spec.heldout_bytes)
    )
    counted = output.fan_out("words", shards, count, context)
    num_bytes = sum(receipt.counters["sample_bytes"] for receipt in counted)
    if not num_bytes:
        total = sum(text.bytes for text in corpus.values())
        raise UserError(
            f"a sample of {spec.sample_bytes} bytes of the {total} of {nodes_of(sources)} holds no text: raise "
            "tokenizer.sample_bytes, or take more of the crawl"
        )
    context = replace(context, words=tuple(file for receipt in counted for file in receipt.files))
    made = output.write("tokenizer", train(context, counted))
    beside = output.fan_out("beside", [{"kind": kind} for kind in spec.kinds_beside], train_beside, context, False)
    trained = {spec.kind: read_files(output, made)}
    trained |= {kind: read_files(output, one) for kind, one in zip(spec.kinds_beside, beside, strict=True)}
    held_out = pa.concat_tables([read_table(output.store, file) for file in context.words if file.name == HELD_OUT])
    return output.write("measures", measures(spec, trained, held_out))


def read_files(output: NodeOutput, receipt: Receipt) -> dict[str, bytes]:
    return {file.name: output.read(file) for file in receipt.files}


def languages(shard: dict[str, int], context: Context) -> ShardOutput:
    """How much text of each language an input file holds."""
    table = read(shard, context)
    table = table.append_column("bytes", pc.binary_length(table["text"].cast(pa.large_binary())))
    table = table.append_column("place", pa.array(places_of(table, context.spec)))
    grouped = table.group_by("language").aggregate([("bytes", "sum"), ("place", "min"), ("place", "max")])
    found = {
        row["language"]: LanguageText(row["bytes_sum"], row["place_min"], row["place_max"]).to_json()
        for row in grouped.sort_by("language").to_pylist()
    }
    return ShardOutput({}, {"documents": table.num_rows}, {"languages": found})


def read(shard: dict[str, int], context: Context) -> pa.Table:
    """Columns id, language ("" where it is not known) and text of an input file."""
    table = context.files[shard["input"]].read(["id", "language", "text"])
    return table.set_column(1, "language", pc.fill_null(table["language"].cast(pa.string()), ""))


def places_of(table: pa.Table, spec: TokenizerSpec) -> np.ndarray:
    """By the text, so that copies of it, in whatever source, are all in the sample, all held out or neither."""
    return places(table["text"].cast(pa.large_binary()).to_pylist(), "tokenizer-sample", spec.seed)


def count(shard: dict[str, int], context: Context) -> ShardOutput:
    """The words of an input file's part of the sample, and its held-out documents, each cut to `heldout_bytes`."""
    spec = context.spec
    table = read(shard, context)
    place = places_of(table, spec)
    nothing = Share(0.0, 1.0)
    chosen = [context.shares.get(language, nothing) for language in table["language"].to_pylist()]
    sample = table.filter(pa.array(place < np.array([share.sampled for share in chosen])))
    held_out = table.filter(pa.array(place >= np.array([share.held_out for share in chosen])))
    words = {}
    for cut in sorted({kinds.cut_of(kind) for kind in (spec.kind, *spec.kinds_beside)}):
        counter = WordCounter(kinds.CUTS[cut])
        counter.add(texts_of(sample))
        words[words_file(cut)] = parquet_file(counting.to_table(counter.words))
    texts = [text[: spec.heldout_bytes] for text in texts_of(held_out)]
    kept = held_out.select(["id", "language"]).append_column("text", pa.array(texts, pa.large_string()))
    return ShardOutput(
        {**words, HELD_OUT: parquet_file(kept)},
        {
            "sample_documents": sample.num_rows,
            "sample_bytes": pc.sum(pc.binary_length(sample["text"].cast(pa.large_binary()))).as_py() or 0,
        },
    )


def words_file(cut: str) -> str:
    """Of the words of a way to cut text."""
    return f"words-{cut}.parquet"


def train(context: Context, counted: Sequence[Receipt]) -> ShardOutput:
    """The files of the tokenizer that the node leaves."""
    spec = context.spec
    words = words_of(context, spec.kind)
    files = kinds.trained(spec.kind, words, spec)
    vocab_size = Encoder(files["tokenizer.json"]).vocab_size
    if vocab_size < spec.vocab_size:
        log.warning("the sample fills %d of %d tokens: there is nothing more to learn", vocab_size, spec.vocab_size)
    counters = Counter[str]()
    for receipt in counted:
        counters.update(receipt.counters)
    return ShardOutput(
        {name: File(data) for name, data in files.items()},
        {**counters, "sample_words": len(words.ends), "vocab_size": vocab_size},
    )


def train_beside(shard: dict[str, Kind], context: Context) -> ShardOutput:
    """Another kind, of the same sample."""
    files = kinds.trained(shard["kind"], words_of(context, shard["kind"]), context.spec)
    return ShardOutput({name: File(data) for name, data in files.items()}, {})


def words_of(context: Context, kind: Kind) -> Words:
    """Of all shards together, cut as this kind cuts them."""
    cut = kinds.cut_of(kind)
    total = WordCounter(kinds.CUTS[cut])
    for file in context.words:
        if file.name == words_file(cut):
            total.add_words(counting.from_table(read_table(context.store, file)))
    return total.words


def read_table(store: Store, file: OutputFile) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_checked(store, file)))


def measures(spec: TokenizerSpec, trained: dict[Kind, dict[str, bytes]], held_out: pa.Table) -> ShardOutput:
    """What the node's tokenizer, the first of `trained`, and those beside it do on the held-out text of each
    language."""
    by_language: dict[str, list[str]] = {}
    left: dict[str, int] = {}
    for language, text in zip(held_out["language"].to_pylist(), held_out["text"].to_pylist(), strict=True):
        if left.setdefault(language, spec.heldout_bytes) > 0:
            by_language.setdefault(language, []).append(text)
            left[language] -= len(text.encode())
    tokenizers = [Measured.trained(kind, files) for kind, files in trained.items()]
    results = [measure(one, by_language) for one in (*tokenizers, *others_of(spec.compared_with))]
    for result in results[: len(tokenizers)]:
        if result.round_trip_failures:
            log.warning(
                "%d held-out documents do not come back from the tokens of %s, which is a defect: keep the crawl and "
                "report it",
                result.round_trip_failures,
                result.name,
            )
    ours = results[0]
    metrics: dict[str, float | int] = {"vocab_size": ours.vocab_size}
    if ours.total.tokens:
        metrics |= {
            "bytes_per_token": round(ours.total.bytes / ours.total.tokens, 3),
            "vocab_used_share": round(ours.vocabulary_used / ours.vocab_size, 4),
            "round_trip_failures": ours.round_trip_failures,
        }
    told = [result.to_json() for result in results]
    return ShardOutput(
        {"measures.json": File((json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())},
        {"heldout_documents": sum(len(texts) for texts in by_language.values())},
        {"metrics": metrics},
    )
