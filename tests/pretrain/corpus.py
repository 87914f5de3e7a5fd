"""Small tokenizer and tokens nodes made of real text: the sources of Python's own library."""

import argparse
import ast
import asyncio.base_events
import email.message
import functools
import hashlib
import inspect
import io
import json
import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Code, InputRef, Manifest
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
VOCABULARY = 512
MODULES = (argparse, asyncio.base_events, ast, email.message, inspect, logging, subprocess)


@functools.cache
def documents() -> tuple[str, ...]:
    """Paragraphs of source code, about 400 characters each."""
    paragraphs = "\n\n".join(Path(str(module.__file__)).read_text() for module in MODULES).split("\n\n")
    found, text = [], ""
    for paragraph in paragraphs:
        text += paragraph + "\n\n"
        if len(text) > 400:
            found.append(text)
            text = ""
    return tuple(found)


@functools.cache
def tokenizer_json() -> str:
    return trained_tokenizer(documents())


def trained_tokenizer(texts: Sequence[str]) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [END_OF_TEXT, PADDING]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer.to_str()


def publish(
    store: Store,
    node: str,
    stages: dict[str, dict[str, bytes]],
    metrics: dict[str, Any] | None = None,
    inputs: dict[str, Checkpoint] | None = None,
    salt: str = "",
) -> Checkpoint:
    """A finished node with these files, under a key of its name."""
    path = NodePath(node, hashlib.sha256(f"{node}{salt}".encode()).hexdigest())
    outputs = []
    for stage, files in stages.items():
        for name, data in files.items():
            where = path.data(stage, 0, "test", "0", name)
            store.put(where, data)
            digest = hashlib.sha256(data).hexdigest()
            outputs.append(
                OutputFile(stage=stage, shard=0, name=name, path=where, bytes=len(data), sha256=digest, rows=0)
            )
    manifest = Manifest(
        node=node,
        key=path.key,
        payload={},
        inputs={
            slot: InputRef(node=upstream.node, key=upstream.key, content_digest="")
            for slot, upstream in (inputs or {}).items()
        },
        outputs=tuple(outputs),
        output_stages=tuple(stages),
        counters={},
        metrics=metrics or {},
        content_digest="",
        code=Code(version=1, digest=""),
        resources={},
        attempt="test",
        started=0.0,
        seconds=0.0,
        cpu_seconds=0.0,
    )
    store.create(path.manifest, manifest.to_json())
    return Checkpoint(store, manifest)


def publish_tokenizer(store: Store, salt: str = "", made: str | None = None) -> Checkpoint:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    files = {
        "tokenizer.json": (made or tokenizer_json()).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return publish(store, "tokenizer", {"tokenizer": files}, salt=salt)


def publish_tokens(store: Store, tokenizer: Checkpoint, num_documents: int | None = None) -> Checkpoint:
    """Every tenth document is held out."""
    encode = Tokenizer.from_str(tokenizer_json()).encode
    parts: dict[str, list[tuple[list[int], int]]] = {"train": [], "heldout": []}
    for i, text in enumerate(documents()[:num_documents]):
        parts["train" if i % 10 else "heldout"].append((encode(text).ids, len(text.encode())))
    return publish_encoded(store, tokenizer, parts, salt=str(num_documents))


def publish_encoded(
    store: Store, tokenizer: Checkpoint, parts: dict[str, list[tuple[list[int], int]]], salt: str = ""
) -> Checkpoint:
    """A tokens node of these documents, each its token ids and its bytes, in train and heldout."""
    stages = {}
    for stage, documents_of in parts.items():
        lengths = np.array([len(ids) + 1 for ids, _ in documents_of], dtype=np.int64)
        index = pa.table(
            {
                "id": [f"{stage}/{i}" for i in range(len(documents_of))],
                "source": ["documents"] * len(documents_of),
                "shard": pa.array(np.zeros(len(documents_of), dtype=np.int32)),
                "start": pa.array(np.cumsum(lengths) - lengths),
                "length": pa.array(lengths),
                "bytes": pa.array([size for _, size in documents_of], pa.int64()),
            }
        )
        sink = io.BytesIO()
        pq.write_table(index, sink)
        stream = np.array([token for ids, _ in documents_of for token in (*ids, 0)], dtype="<u2")
        stages[stage] = {"tokens.bin": stream.tobytes(), "index.parquet": sink.getvalue()}
    metrics = {"dtype": "uint16", "end_of_text": 0}
    return publish(store, "tokens", stages, metrics, {"tokenizer": tokenizer}, salt=salt)
