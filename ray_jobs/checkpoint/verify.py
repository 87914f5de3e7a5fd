"""Whether what stands in a store is what was published.

Shallow: every output is there with its size, by one listing a node. Deep: every byte is read again, checksums and
content digests are computed anew, and each input must still have the content that the node was computed from.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from ray_jobs.checkpoint.keys import KEY_DIGITS_IN_PATHS, key_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, digest_of_receipts, missing_outputs, parse_manifest, read_manifest
from ray_jobs.checkpoint.manifest import withdraw as withdraw_objects
from ray_jobs.checkpoint.shards import OutputFile, Receipt
from ray_jobs.checkpoint.store import Store

READ_BYTES = 8 << 20
FILES_AT_ONCE = 256
HEX_DIGITS = frozenset("0123456789abcdef")


class Problem(Enum):
    """What was found; the value is what to do."""

    GONE = "restore the object from a copy, or run again: just it is computed"
    CONTENT = (
        "restore the object from a copy, or `headrace verify --deep --withdraw` and run again: just it is computed"
    )
    RECORD = "restore the record from a copy, or `headrace verify --deep --withdraw` and run again"
    DIGEST = "manifest and receipts disagree: `headrace verify --deep --withdraw` and run again, the shards are adopted"
    INPUT = "the input was computed anew with another content: raise the node's generation and run again"
    INPUT_GONE = "nothing is damaged; run the recipe again if the input itself is needed"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was published."""

    node: NodePath
    problem: Problem
    path: str
    """The object, relative to the store's root."""
    detail: str

    @property
    def is_damage(self) -> bool:
        """False where the node itself is sound."""
        return self.problem is not Problem.INPUT_GONE

    @property
    def can_be_withdrawn(self) -> bool:
        """Whether taking back the receipt of `path` lets the next run compute exactly what is damaged."""
        return self.problem in {Problem.GONE, Problem.CONTENT}

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}: {self.problem.value}"


def finished_nodes(store: Store) -> list[NodePath]:
    """All nodes of the store that have a manifest."""
    found = []
    for node in store.folders("nodes/"):
        for key in store.folders(f"nodes/{node}/"):
            path = NodePath(node, key)
            if len(key) == KEY_DIGITS_IN_PATHS and HEX_DIGITS.issuperset(key) and store.size(path.manifest) is not None:
                found.append(path)
    return found


def verify(store: Store, nodes: Iterable[NodePath] | None = None, deep: bool = False) -> Iterator[Finding]:
    """What is damaged in `nodes` (by default in all that are finished), as it is found.

    Nothing is changed. A node without a manifest is not done, and has nothing to verify.

    Args:
        deep: read every byte; otherwise only sizes are compared.
    """
    for path in finished_nodes(store) if nodes is None else nodes:
        data = store.get(path.manifest)
        if data is None:
            continue
        try:
            manifest = parse_manifest(data, path)
        except ValueError as error:
            yield Finding(path, Problem.RECORD, path.manifest, str(error).splitlines()[0])
            continue
        yield from _verify_node(store, manifest, deep)


def withdraw(store: Store, findings: Iterable[Finding]) -> None:
    """Takes back what is damaged, so that the next run computes exactly that: receipts of damaged objects, manifests
    that disagree with their receipts, records that cannot be read. Damaged bytes stay where they are, for inspection,
    until they are collected as garbage."""
    for finding in findings:
        if finding.can_be_withdrawn:
            withdraw_objects(store, finding.node, [finding.path])
        elif finding.problem in {Problem.DIGEST, Problem.RECORD}:
            store.delete([finding.node.manifest])
            store.delete([finding.path])


def _verify_node(store: Store, manifest: Manifest, deep: bool) -> Iterator[Finding]:
    path = manifest.path
    unreadable = set()
    for missing in missing_outputs(store, manifest):
        unreadable.add(missing.file.path)
        problem = Problem.GONE if missing.size is None else Problem.CONTENT
        found = "is gone" if missing.size is None else f"has {missing.size} bytes, not {missing.file.bytes}"
        yield Finding(path, problem, missing.file.path, found)
    if not deep:
        return
    if key_of(manifest.payload) != manifest.key:
        yield Finding(path, Problem.RECORD, path.manifest, "its key is not the hash of its payload")
    receipts, damaged = _receipts(store, path)
    yield from damaged
    # Intermediate files too: a node that computes some shards again reads them.
    files = dict.fromkeys([*manifest.outputs, *(file for receipt in receipts for file in receipt.files)])
    readable = [file for file in files if file.path not in unreadable]
    for first in range(0, len(readable), FILES_AT_ONCE):
        some = readable[first : first + FILES_AT_ONCE]
        checked = store.concurrently(lambda file: _verify_content(store, path, file), some)
        yield from (finding for finding in checked if finding is not None)
    yield from _verify_digest(manifest, receipts)
    for slot, upstream in manifest.inputs.items():
        there = read_manifest(store, NodePath(upstream.node, upstream.key))
        where = NodePath(upstream.node, upstream.key).manifest
        if there is None:
            yield Finding(path, Problem.INPUT_GONE, where, f"the input {slot} was collected")
        elif there.content_digest != upstream.content_digest:
            detail = f"the input {slot} has content {there.content_digest[:16]}, not {upstream.content_digest[:16]}"
            yield Finding(path, Problem.INPUT, where, detail)


def _receipts(store: Store, path: NodePath) -> tuple[list[Receipt], list[Finding]]:
    """The receipts of all shards, and those that cannot be read. Training steps are checked as they are loaded."""
    paths = [entry.path for entry in store.list(path.all_receipts) if not entry.path.startswith(path.receipts("steps"))]
    receipts, damaged = [], []
    for where, data in zip(paths, store.get_many(paths), strict=True):
        try:
            if data is not None:
                receipts.append(Receipt.model_validate_json(data))
        except ValueError as error:
            damaged.append(Finding(path, Problem.RECORD, where, f"cannot be read ({str(error).splitlines()[0]})"))
    return receipts, damaged


def _verify_digest(manifest: Manifest, receipts: Sequence[Receipt]) -> Iterator[Finding]:
    given_up = {(shard.stage, shard.shard) for shard in manifest.quarantined}
    published = [r for r in receipts if r.stage in manifest.output_stages and (r.stage, r.shard) not in given_up]
    digest = digest_of_receipts(manifest.key, published, manifest.quarantined)
    if digest != manifest.content_digest:
        detail = f"its {len(published)} receipts give content {digest[:16]}, not {manifest.content_digest[:16]}"
        yield Finding(manifest.path, Problem.DIGEST, manifest.path.manifest, detail)


def _verify_content(store: Store, path: NodePath, file: OutputFile) -> Finding | None:
    digest = hashlib.sha256()
    for start in range(0, file.bytes, READ_BYTES):
        try:
            digest.update(store.get_range(file.path, start, min(READ_BYTES, file.bytes - start)))
        except FileNotFoundError:
            return Finding(path, Problem.GONE, file.path, "is gone")
    if digest.hexdigest() == file.sha256:
        return None
    detail = f"has sha256 {digest.hexdigest()[:16]}, its receipt names {file.sha256[:16]}"
    return Finding(path, Problem.CONTENT, file.path, detail)
