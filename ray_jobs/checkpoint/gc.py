"""Garbage collection: what no ref, no recent run and no live lease reaches goes.

A node that nothing reaches first loses its manifest (it is *withdrawn*; a tombstone under gc/ remembers it); only after
a grace period it loses its receipts and its data, so that whoever was reading can finish. A reader that is only
starting is safe too: it names what it relies on (`begin_run`, a lease) *before* it looks whether a manifest stands, and
the collector looks for such marks again *after* it took a manifest away. One of the two sees the other, and the
manifest is put back.

Inside nodes that stay, what lost attempts left behind goes: data that no receipt names, half-written files.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from pydantic import ValidationError

from ray_jobs.checkpoint.keys import KEY_DIGITS_IN_PATHS
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.lease import read_lease
from ray_jobs.checkpoint.manifest import Manifest, parse_manifest
from ray_jobs.checkpoint.refs import list_refs, read_log
from ray_jobs.checkpoint.runs import Run, Running
from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Entry, Store

R = TypeVar("R", bound=Record)

DAY_SECONDS = 86400.0
RETENTION_SECONDS = 30 * DAY_SECONDS
GRACE_SECONDS = DAY_SECONDS
# Of a ref's log, so many entries before the highest can still be rolled back to.
REF_HISTORY = 5
# A lease is rewritten every 2 s; one that was not for so long belongs to nobody, whatever the store's clock does.
LEASE_SECONDS = 900.0


class Action(Enum):
    WITHDRAW = "withdraw"
    """The manifest goes; everything else waits out the grace period."""
    DELETE = "delete"
    WAIT = "wait"
    """Garbage, but too young, or still in the grace period of its withdrawal."""


@dataclass(frozen=True)
class Item:
    """One thing that is garbage."""

    action: Action
    what: str
    """A node's folder, an object or a half-written file, relative to the store's root."""
    num_objects: int
    bytes: int
    why: str


@dataclass(frozen=True)
class Report:
    items: tuple[Item, ...]
    num_kept_nodes: int
    applied: bool

    def of(self, action: Action) -> list[Item]:
        return [item for item in self.items if item.action is action]

    @property
    def freed_bytes(self) -> int:
        return sum(item.bytes for item in self.of(Action.DELETE))


class Tombstone(Record):
    """The manifest of a node was withdrawn."""

    node: str
    key: str
    manifest: str | None
    """As it stood, to put it back; None where the node was never finished."""


@dataclass
class Node:
    """What a listing shows of one node."""

    path: NodePath
    objects: list[Entry] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(entry.size for entry in self.objects)

    @property
    def modified(self) -> float:
        return max(entry.modified for entry in self.objects)

    @property
    def tombstone(self) -> str:
        return f"gc/{self.path.node}/{self.path.key}.json"

    def find(self, path: str) -> Entry | None:
        return next((entry for entry in self.objects if entry.path == path), None)

    def below(self, *folders: str) -> list[Entry]:
        prefixes = tuple(f"{self.path.root}/{folder}/" for folder in folders)
        return [entry for entry in self.objects if entry.path.startswith(prefixes)]

    def item(self, action: Action, why: str) -> Item:
        return Item(action, self.path.root, len(self.objects), self.num_bytes, why)


def collect(
    store: Store,
    retention_seconds: float = RETENTION_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
    ref_history: int = REF_HISTORY,
    apply: bool = False,
) -> Report:
    """Finds garbage, and with `apply` takes away what is due.

    Args:
        retention_seconds: runs younger than this, finished or under way, keep all their nodes.
        grace_seconds: nothing younger is touched, and so much time passes between a manifest's end and its data's.
        ref_history: entries of each ref, before its highest, that are kept with all they reach.

    Raises:
        ValueError: a record is damaged that may keep something alive; nothing was deleted on its account.
    """
    collection = _Collection(store, retention_seconds, grace_seconds, ref_history, apply)
    nodes = _nodes(store)
    reached = collection.reached(nodes)
    garbage = [node for root, node in nodes.items() if root not in reached]
    collection.withdraw(garbage)
    collection.delete(garbage)
    for root in sorted(reached & nodes.keys()):
        collection.restore(nodes[root])
        collection.sweep(nodes[root])
    collection.forget(nodes)
    collection.discard_leftovers()
    return Report(tuple(collection.items), len(reached & nodes.keys()), apply)


class _Collection:
    """One pass over a store."""

    def __init__(self, store: Store, retention: float, grace: float, ref_history: int, apply: bool):
        self.store, self.ref_history, self.apply = store, ref_history, apply
        now = _clock(store) if apply else time.time()
        self.oldest_run, self.oldest_lease = now - retention, now - LEASE_SECONDS
        self.due = now - grace
        """What was modified later is left alone."""
        self.items: list[Item] = []

    def reached(self, nodes: Mapping[str, Node]) -> set[str]:
        """Folders of the nodes that something needs."""
        by_key = {node.path.key: root for root, node in nodes.items()}
        open_ends = [self._root_named(text, nodes, by_key) for text in self._roots(nodes)]
        found: set[str] = set()
        while open_ends:
            root = open_ends.pop()
            if root is not None and root not in found:
                found.add(root)
                open_ends += [self._root_named(key, nodes, by_key) for key in self._inputs_of(nodes[root])]
        return found

    @staticmethod
    def _root_named(text: str, nodes: Mapping[str, Node], by_key: Mapping[str, str]) -> str | None:
        return text if text in nodes else by_key.get(text[:KEY_DIGITS_IN_PATHS])

    def _roots(self, nodes: Mapping[str, Node]) -> Iterator[str]:
        """Folders and keys of nodes that are needed for themselves, among other strings."""
        wanted_runs = set()
        for name in list_refs(self.store):
            for moved in read_log(self.store, name)[-1 - self.ref_history :]:
                targets = list(_strings(moved.target))
                wanted_runs.update(targets)
                yield from targets
        for entry in self.store.list("runs/"):
            run_id = entry.path.removeprefix("runs/").removesuffix(".json")
            if entry.modified >= self.oldest_run or run_id in wanted_runs:
                for computed in self._read(entry.path, Run).nodes.values():
                    yield computed.key
                    yield from computed.payload.get("inputs", {}).values()
        for entry in self.store.list("running/"):
            if entry.modified >= self.oldest_run:
                yield from self._read(entry.path, Running).nodes
        for node in nodes.values():
            yield from self._kept_by_jobs(node)

    def _kept_by_jobs(self, node: Node) -> Iterator[str]:
        """What a job that runs, or was only just submitted, computes and reads."""
        lease = node.find(node.path.lease)
        if lease is not None and lease.modified >= self.oldest_lease:
            record = read_lease(self.store, lease.path)
            yield node.path.root
            yield from record.reads if record is not None else ()
        for entry in node.below("requests"):
            if entry.modified >= self.due:
                yield node.path.root
                yield from _strings(json.loads(self.store.get(entry.path) or b"null"))

    def _read(self, path: str, kind: type[R]) -> R:
        try:
            return kind.model_validate_json(self.store.get(path) or b"")
        except ValidationError as error:
            raise ValueError(
                f"{path} cannot be read, so what it keeps is not known: restore it, delete it, or collect with the "
                f"version of Headrace that wrote it\n{error}"
            ) from error

    def _inputs_of(self, node: Node) -> list[str]:
        manifest = self._manifest(node)
        return [] if manifest is None else [upstream.key for upstream in manifest.inputs.values()]

    def _manifest(self, node: Node) -> Manifest | None:
        """As it stands, or stood before it was withdrawn."""
        data = self.store.get(node.path.manifest)
        if data is None:
            tombstone = self._tombstone(node)
            data = tombstone.manifest.encode() if tombstone is not None and tombstone.manifest else None
        return None if data is None else parse_manifest(data, node.path)

    def _tombstone(self, node: Node) -> Tombstone | None:
        data = self.store.get(node.tombstone)
        return None if data is None else Tombstone.model_validate_json(data)

    def withdraw(self, garbage: Iterable[Node]) -> None:
        """Takes the manifests of garbage away, and puts those back that someone came to need meanwhile."""
        withdrawn: dict[str, Node] = {}
        for node in garbage:
            stands = node.find(node.path.manifest) is not None
            if node.modified > self.due:
                self.items.append(node.item(Action.WAIT, "nothing needs it, but it is younger than the grace period"))
            elif stands or self.store.size(node.tombstone) is None:
                withdrawn[node.path.root] = node
        if self.apply:
            withdrawn = {root: node for root, node in withdrawn.items() if self._withdraw_one(node)}
            needed = self.reached(_nodes(self.store)) if withdrawn else set()
            for root in needed & withdrawn.keys():
                self.restore(withdrawn.pop(root))
        for node in withdrawn.values():
            self.items.append(node.item(Action.WITHDRAW, "no ref, no recent run and no job needs it"))

    def _withdraw_one(self, node: Node) -> bool:
        manifest = self.store.get(node.path.manifest)
        if manifest is None and node.find(node.path.manifest) is not None:
            return False  # another collection was quicker
        content = None if manifest is None else manifest.decode()
        self.store.put(node.tombstone, Tombstone(node=node.path.node, key=node.path.key, manifest=content).to_json())
        self.store.delete([node.path.manifest])
        return True

    def restore(self, node: Node) -> None:
        """A node that is needed again gets its manifest back, if it was withdrawn."""
        tombstone = self._tombstone(node) if self.apply else None
        if tombstone is None:
            return
        if tombstone.manifest is not None:
            self.store.create(node.path.manifest, tombstone.manifest.encode())
        self.store.delete([node.tombstone])

    def delete(self, garbage: Iterable[Node]) -> None:
        """Takes away what was withdrawn longer than the grace period ago: receipts first, and then, if no job has begun
        to adopt them in between, all the rest."""
        buried = {entry.path: entry.modified for entry in self.store.list("gc/")}
        due: dict[str, Node] = {}
        for node in garbage:
            since = buried.get(node.tombstone)
            if since is None or node.modified > self.due:
                continue
            if since > self.due:
                if not any(item.what == node.path.root for item in self.items):
                    self.items.append(node.item(Action.WAIT, "its manifest was withdrawn, its data follow"))
            else:
                due[node.path.root] = node
        if self.apply and due:
            for node in due.values():
                self.store.delete([entry.path for entry in node.below("receipts", "stages", "shards")])
            nodes = _nodes(self.store)
            needed = self.reached(nodes)
            due = {root: node for root, node in due.items() if root not in needed}
            for root, node in due.items():
                self.store.delete([entry.path for entry in nodes[root].objects] if root in nodes else [])
                self.store.delete([node.tombstone])
        self.items += [
            node.item(Action.DELETE, "nothing needs it, and its grace period is over") for node in due.values()
        ]

    def sweep(self, node: Node) -> None:
        """Inside a node that stays: data that lost attempts left, named by no receipt."""
        lease = node.find(node.path.lease)
        if lease is not None and lease.modified >= self.oldest_lease:
            return
        published = {file.path for file in manifest.outputs} if (manifest := self._manifest(node)) else set()
        old = [entry for entry in node.below("data", "steps") if entry.modified <= self.due]
        orphans = [entry for entry in old if entry.path not in published]
        if orphans:
            # Read after the listing, so that whatever was published by then is named.
            named = _named_by_receipts(self.store, node.path)
            orphans = [entry for entry in orphans if not _is_named(entry.path, node.path, named)]
        if not orphans:
            return
        if self.apply:
            self.store.delete([entry.path for entry in orphans])
        num_bytes = sum(entry.size for entry in orphans)
        why = "left by attempts that were lost: no receipt names them"
        self.items.append(Item(Action.DELETE, f"{node.path.root}/data", len(orphans), num_bytes, why))

    def forget(self, nodes: Mapping[str, Node]) -> None:
        """Our own records whose node is gone, where a collection was interrupted."""
        known = {node.tombstone for node in nodes.values()}
        stale = [entry.path for entry in self.store.list("gc/") if entry.modified <= self.due]
        if self.apply:
            self.store.delete([path for path in stale if path not in known])

    def discard_leftovers(self) -> None:
        for entry in self.store.leftovers():
            if entry.modified <= self.due:
                if self.apply:
                    self.store.discard(entry)
                self.items.append(Item(Action.DELETE, entry.path, 1, entry.size, "half-written by an interrupted job"))


def _nodes(store: Store) -> dict[str, Node]:
    """All nodes by their folders, finished or not, from one listing."""
    nodes: dict[str, Node] = {}
    for entry in store.list("nodes/"):
        kind, key, _ = entry.path.removeprefix("nodes/").split("/", 2)
        path = NodePath(kind, key)
        nodes.setdefault(path.root, Node(path)).objects.append(entry)
    return nodes


def _clock(store: Store) -> float:
    """The store's own time, by which the ages of its objects are told."""
    path = f"gc/clock-{secrets.token_hex(8)}"
    store.put(path, b"")
    try:
        return next(entry.modified for entry in store.list("gc/") if entry.path == path)
    finally:
        store.delete([path])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _named_by_receipts(store: Store, path: NodePath) -> set[str]:
    """Objects, and folders of training steps, that a receipt of the node names."""
    named = set()
    for data in store.get_many([entry.path for entry in store.list(path.all_receipts)]):
        receipt = json.loads(data or b"{}")
        named |= {file["path"] for file in receipt.get("files", ()) if "path" in file}
        if "session" in receipt:  # of a training step, see ray_jobs/pretrain/steps.py
            named.add(f"{path.root}/steps/{receipt['step']:08d}-{receipt['session']}")
    return named


def _is_named(path: str, node: NodePath, named: set[str]) -> bool:
    steps = f"{node.root}/steps/"
    return path in named or (path.startswith(steps) and steps + path.removeprefix(steps).partition("/")[0] in named)
