"""Two nodes: `tokenizer` trains byte-level BPE on a sample of the documents, `tokens` encodes all of them.

    tokenizer: tokenizer   one shard: tokenizer.json, tokenizer_config.json, special_tokens_map.json tokens:    train
    a shard for every input file: tokens.bin (little-endian ids, documents end to end, each followed by
               heldout     end-of-text) and index.parquet (where each document stands), apart for the two parts

`loader.TokenDataset` reads tokens.bin in a shuffled order.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.tokenizer import TokenizerSpec, TokensSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.sampling import places

# The tokenizer's headline figures are taken on this much of its sample.
MEASURED_CHARACTERS = 1 << 20
# Texts handed to the tokenizer at once.
BATCH_BYTES = 1 << 22
TRAIN, HELDOUT = "train", "heldout"

log = logging.getLogger("headrace")


def tokenizer(spec: TokenizerSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    documents = inputs["documents"]
    done = output.standing("tokenizer")
    if done is None:
        done = output.write("tokenizer", trained(spec, documents))
    counters = done.counters
    return Outcome(
        ("tokenizer",),
        metrics={
            "vocab_size": counters["vocab_size"],
            "bytes_per_token": round(counters["measured_bytes"] / max(1, counters["measured_tokens"]), 3),
            "vocab_used_share": round(counters["measured_vocab"] / counters["vocab_size"], 4),
        },
    )


def trained(spec: TokenizerSpec, documents: Checkpoint) -> ShardOutput:
    """The tokenizer's files, and what it does on the first part of its own sample."""
    total_bytes = documents.manifest.counters["text_bytes_kept"]
    share = spec.sample_bytes / total_bytes if total_bytes else 0.0
    seen = {"sample_documents": 0, "sample_bytes": 0}
    model = bpe.train(
        counted(sample(documents, share, spec.seed), seen), spec.vocab_size, spec.pre_tokenizer, spec.min_frequency
    )
    if seen["sample_bytes"] == 0:
        raise UserError(
            f"a sample of {spec.sample_bytes} bytes of {documents.node}'s {total_bytes} holds no text: raise "
            "tokenizer.sample_bytes, or take more of the crawl"
        )
    vocab_size = model.get_vocab_size()
    if vocab_size < spec.vocab_size:
        log.warning(
            "the sample fills %d of %d tokens: no pair is left that occurs %d times",
            vocab_size,
            spec.vocab_size,
            spec.min_frequency,
        )
    files = bpe.files(model)
    encoder = Encoder(files["tokenizer.json"])
    measured = list(first_characters(sample(documents, share, spec.seed), MEASURED_CHARACTERS))
    tokens, lengths = encoder.encode_documents(measured)
    return ShardOutput(
        {name: File(data) for name, data in files.items()},
        {
            **seen,
            "vocab_size": vocab_size,
            "measured_bytes": sum(len(text.encode()) for text in measured),
            "measured_tokens": int(lengths.sum()) - len(measured),
            "measured_vocab": len(np.unique(tokens)),
        },
    )


def sample(documents: Checkpoint, share: float, seed: int) -> Iterator[str]:
    """Texts of a random share of the documents, in the order of the files; one file is held at a time."""
    for file in documents.files("documents.parquet"):
        table = read(documents, file, ["id", "text"])
        chosen = places(table["id"].to_pylist(), "tokenizer-sample", seed) < share
        yield from texts_of(table.filter(pa.array(chosen)))


def texts_of(table: pa.Table) -> Iterator[str]:
    for value in table["text"].cast(pa.large_binary()):
        yield bpe.decoded(value.as_py())


def counted(texts: Iterator[str], seen: dict[str, int]) -> Iterator[str]:
    for text in texts:
        seen["sample_documents"] += 1
        seen["sample_bytes"] += len(text.encode())
        yield text


def first_characters(texts: Iterator[str], limit: int) -> Iterator[str]:
    for text in texts:
        yield text[:limit]
        limit -= len(text)
        if limit <= 0:
            return


def read(documents: Checkpoint, file: OutputFile, columns: list[str]) -> pa.Table:
    return pq.read_table(pa.BufferReader(documents.read(file)), columns=columns)


@dataclass(frozen=True)
class Context:
    spec: TokensSpec
    documents: Checkpoint
    tokenizer: Checkpoint
    part: str


def tokens(spec: TokensSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    documents, trained_on = inputs["documents"], inputs["tokenizer"]
    shards = [{"input": i} for i in range(len(documents.files("documents.parquet")))]
    parts = {
        part: output.fan_out(part, shards, encode, Context(spec, documents, trained_on, part))
        for part in (TRAIN, HELDOUT)
    }
    counters = {f"{part}_{name}": total(parts[part], name) for part in parts for name in COUNTED}
    if not counters["train_num_tokens"]:
        raise UserError(
            f"{documents.node} left no document to train on: take more of the crawl, or lower tokens.heldout_share"
        )
    if spec.heldout_share and not counters["heldout_num_documents"]:
        raise UserError(
            f"no document of {counters['train_num_documents']} fell into the held-out share {spec.heldout_share}: "
            "raise tokens.heldout_share, or set it to 0 to do without evaluation"
        )
    encoder = Encoder(trained_on.read(trained_on.file("tokenizer.json")))
    return Outcome(
        (TRAIN, HELDOUT),
        counters=counters,
        metrics={
            "dtype": encoder.dtype,
            "vocab_size": encoder.vocab_size,
            "end_of_text": encoder.end_of_text,
            "num_tokens": counters["train_num_tokens"],
            "bytes_per_token": round(counters["train_num_bytes"] / counters["train_num_tokens"], 3),
        },
    )


COUNTED = ("num_documents", "num_tokens", "num_bytes", "documents_repaired")


def total(receipts: list[Receipt], name: str) -> int:
    return sum(receipt.counters[name] for receipt in receipts)


def encode(shard: dict[str, int], context: Context) -> ShardOutput:
    """One part of one input file: its tokens, and the place of each document in them."""
    # Workers are processes of one core each; threads of the library would only contend for it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec = context.spec
    encoder = Encoder(context.tokenizer.read(context.tokenizer.file("tokenizer.json")))
    file = context.documents.files("documents.parquet")[shard["input"]]
    table = read(context.documents, file, ["id", "language", "text"])
    heldout = places(table["id"].to_pylist(), "heldout", spec.seed) < spec.heldout_share
    table = table.filter(pa.array(heldout if context.part == HELDOUT else ~heldout))

    parts, lengths = [np.empty(0, dtype=encoder.dtype)], [np.empty(0, dtype=np.int64)]
    num_bytes = []
    repaired = 0
    for texts in bpe.batches(texts_of(table), BATCH_BYTES):
        some, some_lengths = encoder.encode_documents(texts)
        parts.append(some)
        lengths.append(some_lengths)
        num_bytes += [len(text.encode()) for text in texts]
    stored = np.concatenate(parts).astype(np.dtype(encoder.dtype).newbyteorder("<"), copy=False)
    length = np.concatenate(lengths)
    index = pa.table(
        {
            "id": table["id"],
            "shard": pa.array(np.full(len(length), shard["input"], dtype=np.int32)),
            "start": pa.array(np.cumsum(length) - length),
            "length": pa.array(length),
            "bytes": pa.array(num_bytes, pa.int64()),
        }
    )
    repaired = int((np.array(num_bytes) != pc.binary_length(table["text"]).to_numpy()).sum()) if num_bytes else 0
    return ShardOutput(
        {"tokens.bin": File(stored.tobytes(), len(stored)), "index.parquet": parquet_file(index)},
        {
            "num_documents": table.num_rows,
            "num_tokens": len(stored),
            "num_bytes": sum(num_bytes),
            "documents_repaired": repaired,
        },
        {"languages": by_language(table["language"].to_pylist(), num_bytes, length.tolist())},
    )


def by_language(languages: list[str], num_bytes: list[int], lengths: list[int]) -> dict[str, list[int]]:
    """For each language its bytes and tokens (without end-of-text): the tokenizer's fertility."""
    sums: dict[str, list[int]] = {}
    for language, size, length in zip(languages, num_bytes, lengths, strict=True):
        entry = sums.setdefault(language, [0, 0])
        entry[0] += size
        entry[1] += length - 1
    return dict(sorted(sums.items()))
