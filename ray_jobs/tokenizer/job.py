"""The node `tokenizer`: a vocabulary trained on a sample of the documents, and what it does on text that it never saw.

    languages  a shard for every input file: how much text of each language it holds
    words      a shard for every input file: the distinct words of its part of the sample with their counts, and its
               held-out documents
    tokenizer  one shard: the files that transformers and sentencepiece load
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
from configs.tokenizer import TokenizerSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, Receipt, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.tokenizer import balance, bpe, counting, sentence_pieces
from ray_jobs.tokenizer.balance import LanguageText, Share
from ray_jobs.tokenizer.counting import BLANKS, WordCounter
from ray_jobs.tokenizer.documents import DocumentFile, files_of, nodes_of, sources_of, texts_of
from ray_jobs.tokenizer.measures import Measured, measure, others_of
from ray_jobs.tokenizer.merging import Words
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.sampling import places

WORDS, HELD_OUT = "words.parquet", "heldout.parquet"
OUTPUTS = ("tokenizer", "measures")

log = logging.getLogger("headrace")


@dataclass(frozen=True)
class Context:
    spec: TokenizerSpec
    files: tuple[DocumentFile, ...]
    shares: dict[str, Share] = field(default_factory=dict)


def run(spec: TokenizerSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    made, measured = output.standing("tokenizer"), output.standing("measures")
    if made is None or measured is None:
        measured = computed(spec, sources_of(inputs), output)
    return Outcome(OUTPUTS, metrics=measured.info["metrics"])


def computed(spec: TokenizerSpec, sources: dict[str, Checkpoint], output: NodeOutput) -> Receipt:
    """Trains and measures; the receipt of the measures."""
    context = Context(spec, tuple(files_of(sources)))
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
    made = output.write("tokenizer", train(spec, counted, output))
    files = {file.name: output.read(file) for file in made.files}
    held_out = pa.concat_tables([table_of(output, receipt, HELD_OUT) for receipt in counted])
    return output.write("measures", measures(spec, files, held_out))


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
    counter = WordCounter(bpe.PATTERNS[spec.pre_tokenizer] if spec.model == "bpe" else BLANKS)
    counter.add(texts_of(sample))
    texts = [text[: spec.heldout_bytes] for text in texts_of(held_out)]
    kept = held_out.select(["id", "language"]).append_column("text", pa.array(texts, pa.large_string()))
    return ShardOutput(
        {WORDS: parquet_file(counting.to_table(counter.words)), HELD_OUT: parquet_file(kept)},
        {
            "sample_documents": sample.num_rows,
            "sample_bytes": pc.sum(pc.binary_length(sample["text"].cast(pa.large_binary()))).as_py() or 0,
        },
    )


def train(spec: TokenizerSpec, counted: Sequence[Receipt], output: NodeOutput) -> ShardOutput:
    """The tokenizer's files."""
    words = words_of(counted, output)
    model = None
    if spec.model == "bpe":
        tokenizer = bpe.trained(words, spec.vocab_size, spec.pre_tokenizer, spec.min_frequency)
    else:
        model = sentence_pieces.train(words, spec.model, spec.vocab_size)
        tokenizer = sentence_pieces.to_tokenizer(model)
    vocab_size = tokenizer.get_vocab_size()
    if vocab_size < spec.vocab_size:
        log.warning("the sample fills %d of %d tokens: there is nothing more to learn", vocab_size, spec.vocab_size)
    counters = Counter[str]()
    for receipt in counted:
        counters.update(receipt.counters)
    return ShardOutput(
        {name: File(data) for name, data in tokenizer_files(tokenizer, spec.chat_template, model).items()},
        {**counters, "sample_words": len(words.ends), "vocab_size": vocab_size},
    )


def words_of(counted: Sequence[Receipt], output: NodeOutput) -> Words:
    """Of all shards together."""
    total = WordCounter(BLANKS)
    for receipt in counted:
        total.add_words(counting.from_table(table_of(output, receipt, WORDS)))
    return total.words


def table_of(output: NodeOutput, receipt: Receipt, name: str) -> pa.Table:
    (file,) = [file for file in receipt.files if file.name == name]
    return pq.read_table(pa.BufferReader(output.read(file)))


def measures(spec: TokenizerSpec, files: dict[str, bytes], held_out: pa.Table) -> ShardOutput:
    """What the tokenizer and those it is compared with do on the held-out text of each language."""
    by_language: dict[str, list[str]] = {}
    left: dict[str, int] = {}
    for language, text in zip(held_out["language"].to_pylist(), held_out["text"].to_pylist(), strict=True):
        if left.setdefault(language, spec.heldout_bytes) > 0:
            by_language.setdefault(language, []).append(text)
            left[language] -= len(text.encode())
    results = [measure(one, by_language) for one in (Measured.trained(files), *others_of(spec.compared_with))]
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
