"""The node `tokenizer`: byte-level BPE trained on a sample of the documents.

    tokenizer  one shard: tokenizer.json, tokenizer_config.json, special_tokens_map.json

`tokens_job` encodes the documents with it.
"""

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from configs.base import Resources
from configs.tokenizer import TokenizerSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.documents import files_of, nodes_of, sources_of, texts_of
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.sampling import places

# The tokenizer's headline figures are taken on this much of its sample.
MEASURED_CHARACTERS = 1 << 20

log = logging.getLogger("headrace")


def run(spec: TokenizerSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    done = output.standing("tokenizer")
    if done is None:
        done = output.write("tokenizer", trained(spec, sources_of(inputs)))
    counters = done.counters
    return Outcome(
        ("tokenizer",),
        metrics={
            "vocab_size": counters["vocab_size"],
            "bytes_per_token": round(counters["measured_bytes"] / max(1, counters["measured_tokens"]), 3),
            "vocab_used_share": round(counters["measured_vocab"] / counters["vocab_size"], 4),
        },
    )


def trained(spec: TokenizerSpec, documents: Mapping[str, Checkpoint]) -> ShardOutput:
    """The tokenizer's files, and what it does on the first part of its own sample."""
    total_bytes = sum(source.manifest.counters["text_bytes_kept"] for source in documents.values())
    share = spec.sample_bytes / total_bytes if total_bytes else 0.0
    seen = {"sample_documents": 0, "sample_bytes": 0}
    model = bpe.train(
        counted(sample(documents, share, spec.seed), seen), spec.vocab_size, spec.pre_tokenizer, spec.min_frequency
    )
    if seen["sample_bytes"] == 0:
        raise UserError(
            f"a sample of {spec.sample_bytes} bytes of the {total_bytes} of {nodes_of(documents)} holds no text: raise "
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


def sample(documents: Mapping[str, Checkpoint], share: float, seed: int) -> Iterator[str]:
    """Texts of a random share of all sources' documents, in the order of the files; one file is held at a time."""
    for file in files_of(documents):
        table = file.read(["id", "text"])
        chosen = places(table["id"].to_pylist(), "tokenizer-sample", seed) < share
        yield from texts_of(table.filter(pa.array(chosen)))


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
