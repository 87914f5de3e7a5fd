"""The node `tokens`: all documents as token ids, in a training and a held-out part.

    train     a shard for every input file: tokens.bin (little-endian ids, documents end to end, each followed by
    heldout   end-of-text) and index.parquet (where each document stands), apart for the two parts

`loader.TokenDataset` reads tokens.bin in a shuffled order.
"""

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.base import Resources
from configs.tokens import TokensSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, Receipt, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.documents import read, texts_of
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.sampling import places

# Texts handed to the tokenizer at once.
BATCH_BYTES = 1 << 22
TRAIN, HELDOUT = "train", "heldout"


@dataclass(frozen=True)
class Context:
    spec: TokensSpec
    documents: Checkpoint
    tokenizer: Checkpoint
    part: str


def run(spec: TokensSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
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
