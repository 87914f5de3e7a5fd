"""What a retraction touches: the documents it names, and every model that was trained on one of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.nodes import NODES
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.refs import list_refs, read_ref
from ray_jobs.checkpoint.retraction import Retracted
from ray_jobs.checkpoint.runs import list_runs, read_run
from ray_jobs.checkpoint.store import Store

# Nodes that learn from documents: rooms of language models, and what is trained beside them.
MODEL_ROOMS = {"pretrain", "align", "quantize"}
LEARNED = {"ngram-lm", "classifier", "tokenizer"}
AUDIT = "audit.parquet"


@dataclass(frozen=True)
class TouchedModel:
    node: str
    key: str
    num_documents: int
    """Of the named ones, those that every node between the crawl and the model kept."""
    runs: tuple[str, ...]
    """That made it or relied on it."""
    refs: tuple[str, ...]
    """That point at it now, such as models/production."""


@dataclass(frozen=True)
class Touched:
    num_documents: int
    """Named documents that entered some corpus in this store."""
    models: tuple[TouchedModel, ...]


def touched(store: Store, retracted: Retracted) -> Touched:
    """Looks through the audits of every corpus in the store, one file at a time."""
    named: dict[str, set[str]] = {}
    for manifest in _finished(store, {kind for kind, node in NODES.items() if node.room == "crawl"}):
        named[manifest.key] = {
            id
            for ids, urls in _columns(Checkpoint(store, manifest), ("id", "url"))
            for id, url in zip(ids, urls, strict=True)
            if retracted.names(id, url)
        }
    models: list[TouchedModel] = []
    runs = [read_run(store, run) for run in list_runs(store)]
    refs = {name: entry.target for name in list_refs(store) if (entry := read_ref(store, name)) is not None}
    reached: dict[str, frozenset[str]] = {key: frozenset(ids) for key, ids in named.items()}
    for manifest in _finished(store, LEARNED | {kind for kind, node in NODES.items() if node.room in MODEL_ROOMS}):
        seen = _reached(store, manifest, reached)
        if seen:
            models.append(
                TouchedModel(
                    manifest.node,
                    manifest.key,
                    len(seen),
                    tuple(run.id for run in runs if any(node.key == manifest.key for node in run.nodes.values())),
                    tuple(name for name, target in refs.items() if manifest.key in map(str, target.values())),
                )
            )
    return Touched(len(set().union(*named.values())), tuple(models))


def _reached(store: Store, manifest: Manifest, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The named documents that this node passes on: those of its inputs, without what it dropped itself.

    What was collected since passes nothing on; an earlier crawl's index is compared with, and not read on.
    """
    if manifest.key not in known:
        found: set[str] = set()
        for slot, one in manifest.inputs.items():
            upstream = read_manifest(store, NodePath(one.node, one.key)) if slot != "earlier" else None
            if upstream is not None:
                found |= _reached(store, upstream, known)
        if found and any(file.name == AUDIT for file in manifest.outputs):
            found -= {
                id
                for ids, decisions in _columns(Checkpoint(store, manifest), ("id", "decision"))
                for id, decision in zip(ids, decisions, strict=True)
                if decision != "kept"
            }
        known[manifest.key] = frozenset(found)
    return known[manifest.key]


def _finished(store: Store, kinds: set[str]) -> Iterator[Manifest]:
    for kind in sorted(kinds):
        for key in store.folders(f"nodes/{kind}/"):
            manifest = read_manifest(store, NodePath(kind, key))
            if manifest is not None:
                yield manifest


def _columns(checkpoint: Checkpoint, names: tuple[str, str]) -> Iterator[tuple[list[str], list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in checkpoint.files(AUDIT):
        table = pq.read_table(pa.BufferReader(checkpoint.read(file)), columns=list(names))
        yield table[names[0]].to_pylist(), table[names[1]].to_pylist()
