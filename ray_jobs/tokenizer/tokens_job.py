"""The node `tokens`: the documents of all sources as token ids, in a training and a held-out part.

    train     a shard for every file of documents, those of the sources in turn: tokens.bin (little-endian ids,
    heldout   documents end to end, each followed by end-of-text), index.parquet (where each document stands) and, of
              train, vocabulary.bin (a bit for every token id: whether it occurs)

In train, a document stands as often as its source weighs, and a shard's documents in the order of a hash: neighbours of
a crawl are mostly pages of one site, and a window of training should not be. `loader.TokenDataset` reads tokens.bin in
an order that is shuffled over all shards.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.base import Resources
from configs.tokens import TokensSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, Receipt, ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.sampling import copies, places
from ray_jobs.tokenizer.documents import DocumentFile, files_of, interleaved, nodes_of, sources_of
from ray_jobs.tokenizer.encode import Encoder, sound
from ray_jobs.tokenizer.statistics import by_language, figures, length_histogram, used_bits

TRAIN, HELDOUT = "train", "heldout"
COUNTED = ("num_documents", "num_tokens", "num_bytes", "documents_repaired")


@dataclass(frozen=True)
class Context:
    spec: TokensSpec
    files: list[DocumentFile]
    tokenizer: Checkpoint
    part: str


def run(spec: TokensSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    spec.check_inputs(inputs)
    sources, trained_on = sources_of(inputs), inputs["tokenizer"]
    weighed = {source: documents for source, documents in sources.items() if spec.weights.get(source, 1.0)}
    if not weighed:
        raise UserError(f"every source has weight 0: give one of {', '.join(sources)} another in tokens.weights")
    files = interleaved(files_of(weighed))
    shards = [{"shard": number, "source": file.source, "file": file.file.shard} for number, file in enumerate(files)]
    parts = {
        part: output.fan_out(part, shards, encode, Context(spec, files, trained_on, part)) for part in (TRAIN, HELDOUT)
    }
    counters = {f"{part}_{name}": total(parts[part], name) for part in parts for name in COUNTED}
    check_parts(spec, counters, nodes_of(weighed))
    encoder = encoder_of(trained_on.read(trained_on.file("tokenizer.json")))
    statistics = figures(parts, [file.source for file in files], output, encoder.vocab_size)
    return Outcome(
        (TRAIN, HELDOUT),
        counters={**counters, **statistics.counters},
        metrics={
            "dtype": encoder.dtype,
            "vocab_size": encoder.vocab_size,
            "end_of_text": encoder.end_of_text,
            "num_tokens": counters["train_num_tokens"],
            "bytes_per_token": round(counters["train_num_bytes"] / counters["train_num_tokens"], 3),
            **statistics.metrics,
        },
    )


def total(receipts: list[Receipt], name: str) -> int:
    return sum(receipt.counters[name] for receipt in receipts)


def check_parts(spec: TokensSpec, counters: Mapping[str, int], nodes: str) -> None:
    """Raises UserError where a part that is wanted came out empty."""
    train, heldout = counters["train_num_documents"], counters["heldout_num_documents"]
    if not train and any(0 < weight < 1 for weight in spec.weights.values()):
        raise UserError(
            f"{nodes} left no document to train on by their weights below 1: take more of the crawl, or raise "
            "tokens.weights"
        )
    if not train and not heldout:
        raise UserError(f"{nodes} kept no document: take more of the crawl, or loosen what drops its pages")
    if not train:
        raise UserError(
            f"{nodes} left no document to train on, all {heldout} are held out: take more of the crawl, or lower "
            "tokens.heldout_share"
        )
    if spec.heldout_share and not heldout:
        raise UserError(
            f"no document of {train} fell into the held-out share {spec.heldout_share}: "
            "raise tokens.heldout_share, or set it to 0 to do without evaluation"
        )


def encode(shard: dict[str, int | str], context: Context) -> ShardOutput:
    """One part of one file of documents: its tokens, and the place of each document in them."""
    # Workers are processes of one core each; threads of the library would only contend for it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec = context.spec
    number = int(shard["shard"])
    encoder = encoder_of(context.tokenizer.read(context.tokenizer.file("tokenizer.json")))
    table = chosen(context.files[number].read(["id", "language", "text"]), number, context)

    texts = sound(table["text"])
    tokens, length = encoder.encode_column(texts)
    num_bytes = pc.binary_length(texts).to_numpy().astype(np.int64)
    repaired = num_bytes != pc.binary_length(table["text"]).to_numpy()

    order = placed(table, spec.seed) if context.part == TRAIN else np.arange(len(length))
    stored = joined(tokens, length, order).astype(np.dtype(encoder.dtype).newbyteorder("<"), copy=False)
    length, num_bytes = length[order], num_bytes[order]
    languages = table["language"].take(pa.array(order)).to_pylist()
    index = pa.table(
        {
            "id": table["id"].take(pa.array(order)),
            "source": pa.array([str(shard["source"])] * len(order), pa.string()),
            "shard": pa.array(np.full(len(order), number, dtype=np.int32)),
            "start": pa.array(np.cumsum(length) - length),
            "length": pa.array(length),
            "bytes": pa.array(num_bytes),
        }
    )
    files = {"tokens.bin": File(stored.tobytes(), len(stored)), "index.parquet": parquet_file(index)}
    if context.part == TRAIN:
        files["vocabulary.bin"] = File(used_bits(stored, encoder.vocab_size))
    return ShardOutput(
        files,
        {
            "num_documents": len(order),
            "num_tokens": len(stored),
            "num_bytes": int(num_bytes.sum()),
            "documents_repaired": int(repaired[order].sum()),
        },
        {
            "languages": by_language(languages, num_bytes.tolist(), length.tolist()),
            "lengths": length_histogram(length),
        },
    )


@functools.lru_cache(maxsize=1)
def encoder_of(data: bytes) -> Encoder:
    """A worker's encoder, for all of its shards: one takes a fifth of a second to make, and knows words by then."""
    return Encoder(data)


def chosen(table: pa.Table, number: int, context: Context) -> pa.Table:
    """The documents of the context's part, with a column `copies`: how often each stands there."""
    spec, file = context.spec, context.files[number]
    texts = table["text"].cast(pa.large_binary()).to_pylist()
    heldout = places(texts, "heldout", spec.seed) < spec.heldout_share
    if context.part == HELDOUT:
        table = table.filter(pa.array(heldout))
        return table.append_column("copies", pa.array(np.ones(table.num_rows, dtype=np.int64)))
    table = table.filter(pa.array(~heldout))
    name = f"{file.source}/{file.file.shard}"
    taken = copies(table["id"].to_pylist(), spec.weights.get(file.source, 1.0), name, spec.seed)
    return table.append_column("copies", pa.array(taken)).filter(pa.array(taken > 0))


def placed(table: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """Which row stands first, second, …: every row as often as it has copies, by a hash of id and copy."""
    ids, taken = table["id"].to_pylist(), table["copies"].to_numpy()
    rows, order = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float64)]
    for copy in range(int(taken.max(initial=0))):
        some = np.flatnonzero(taken > copy)
        rows.append(some)
        order.append(places([ids[row] for row in some.tolist()], f"order/{copy}", seed))
    return np.concatenate(rows)[np.argsort(np.concatenate(order), kind="stable")]


def joined(
    tokens: npt.NDArray[np.unsignedinteger], length: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> npt.NDArray[np.unsignedinteger]:
    """The documents of those rows end to end."""
    ends = np.cumsum(length)
    starts = ends - length
    spans = zip(starts[order].tolist(), ends[order].tolist(), strict=True)
    return np.concatenate([tokens[:0], *(tokens[start:end] for start, end in spans)])
