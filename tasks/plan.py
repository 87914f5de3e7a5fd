"""The plan before a run: for every node HIT, RUN or RESUME, and why."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.base import Spec
from configs.nodes import NODES
from configs.recipe import Recipe, RecipeNode, checked
from configs.tokens import DOCUMENTS
from ray_jobs.checkpoint.code import room_digest
from ray_jobs.checkpoint.keys import canonical_json, key_of, key_payload
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, missing_outputs, read_manifest
from ray_jobs.checkpoint.refs import RefMoved, move_ref, read_ref
from ray_jobs.checkpoint.retraction import standing_retractions
from ray_jobs.checkpoint.runs import Run, last_run_of
from ray_jobs.checkpoint.store import Store

HIT, RUN, RESUME = "HIT", "RUN", "RESUME"
# The crawl cannot be reached from here, so there are no keys yet: such a plan can be read, not run.
UNPINNED = "UNPINNED"


@dataclass(frozen=True)
class PlannedNode:
    """What will be done for one node of the recipe."""

    recipe_node: RecipeNode
    spec: Spec
    payload: dict[str, Any]
    key: str
    state: str
    why: tuple[str, ...]
    manifest: Manifest | None = None
    """Where the state is HIT."""
    drift: bool = False
    """The node's code changed under the same version since its checkpoint was made."""

    @property
    def name(self) -> str:
        return self.recipe_node.name

    @property
    def kind(self) -> str:
        return self.recipe_node.kind.name

    @property
    def path(self) -> NodePath:
        return NodePath(self.kind, self.key)


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    store: Store
    nodes: Mapping[str, PlannedNode]
    """In the recipe's order."""
    last_run: Run | None = field(default=None)

    def all_hit(self) -> bool:
        return all(node.state == HIT for node in self.nodes.values())


def make_plan(recipe: Recipe, store: Store, refresh: bool = False, offline: bool = False) -> Plan:
    """Resolves pins and keys, and looks up what stands in the store.

    An all-HIT plan takes two requests a node and one more for each 1,000 outputs.

    Args:
        refresh: look at external inputs anew instead of reusing their pins.
        offline: where an external input cannot be reached, or is made of packages that are not installed here, plan
            without keys instead of raising.

    Raises:
        ConnectionError: an external input is not pinned yet and cannot be reached.
        ModuleNotFoundError: a package that it is made of is not installed here.
    """
    last_run = last_run_of(store, recipe.name)
    planned: dict[str, PlannedNode] = {}
    for node in recipe.nodes.values():
        if any(planned[upstream].state == UNPINNED for upstream in node.inputs.values()):
            planned[node.name] = _unpinned(node, "its key follows from a pin")
            continue
        try:
            spec = _spec_of(node, store, refresh)
        except (ConnectionError, ModuleNotFoundError) as error:
            if not offline:
                raise
            planned[node.name] = _unpinned(node, f"cannot be pinned from here: {error}")
            continue
        standing = {slot: _standing_key(store, node, slot) for slot in node.standing}
        inputs = {slot: planned[upstream].key for slot, upstream in node.inputs.items()} | standing
        payload = key_payload(node.kind.name, node.kind.version, spec, inputs, node.generation)
        path = NodePath(node.kind.name, key_of(payload))
        manifest = read_manifest(store, path)
        missing = missing_outputs(store, manifest) if manifest else []
        if manifest and not missing:
            drift = manifest.code.digest != room_digest(node.kind.room)
            changed = f"DRIFT: the code of {node.kind.room}/ changed under version {node.kind.version}"
            why: tuple[str, ...] = (changed,) if drift else ()
            planned[node.name] = PlannedNode(node, spec, payload, path.key, HIT, why, manifest, drift)
            continue
        if missing:
            why = (f"{len(missing)} outputs are missing or damaged: {missing[0]}",)
        else:
            why = tuple(_why(node, payload, path.key, planned, last_run))
        num_shards, num_done = _standing_shards(store, path)
        if num_done:
            why = (f"{num_done} of {num_shards} shards or steps stand", *why)
        planned[node.name] = PlannedNode(node, spec, payload, path.key, RESUME if num_done else RUN, why)
    return Plan(recipe, store, planned, last_run)


def _standing_key(store: Store, node: RecipeNode, slot: str) -> str:
    kind, digits = node.standing[slot]
    manifest = read_manifest(store, NodePath(kind, digits))
    if manifest is None or not manifest.key.startswith(digits):
        raise ValueError(
            f"{node.name}.inputs.{slot} is {kind}@{digits}, and {store.url} holds no such finished checkpoint: take "
            "the key from the plan of the recipe that made it"
        )
    own = slot.partition(".")[0] == DOCUMENTS and _holds_retracted(store, manifest)
    if own or (node.kind.retractable and _retracted(manifest) != list(standing_retractions(store))):
        raise ValueError(
            f"{node.name}.inputs.{slot} is {kind}@{digits}, which was made before the last retraction: run the recipe "
            "that made it again, and those of the crawls after it, then name its new key"
        )
    return manifest.key


def _holds_retracted(store: Store, manifest: Manifest) -> bool:
    """Whether its documents went through a node that leaves out what is retracted, before the last retraction."""
    retracted = standing_retractions(store)
    if not retracted:
        return False
    if NODES[manifest.node].retractable:
        return _retracted(manifest) != list(retracted)
    upstream = (read_manifest(store, NodePath(one.node, one.key)) for one in manifest.inputs.values())
    return any(_holds_retracted(store, one) for one in upstream if one is not None)


def _retracted(manifest: Manifest) -> list[str]:
    return list(manifest.payload["spec"].get("retracted", []))


def _unpinned(node: RecipeNode, why: str) -> PlannedNode:
    payload = {"spec": json.loads(canonical_json(node.written.model_dump()))}
    return PlannedNode(node, node.written, payload, "", UNPINNED, (why,))


def _spec_of(node: RecipeNode, store: Store, refresh: bool) -> Spec:
    """The node's spec; where an external input makes it, the pin that stands, or a new one."""
    if node.kind.retractable and (retracted := standing_retractions(store)):
        return node.written.model_copy(update={"retracted": retracted})
    if node.kind.pin is None:
        return node.written
    module, _, function = node.kind.pin.partition(":")
    pin: Callable[[Spec], Spec] = getattr(importlib.import_module(module), function)
    if not node.written.needs_network:
        return pin(node.written)  # cheap, and a function of what is installed here: nothing to remember
    name = f"pins/{hashlib.sha256(canonical_json(node.written.model_dump()).encode()).hexdigest()[:16]}"
    entry = read_ref(store, name)
    if entry is not None and not refresh:
        return checked(node.kind.spec, entry.target, node.name)
    spec = pin(node.written)
    target = json.loads(canonical_json(spec.model_dump()))
    if entry is None or entry.target != target:
        try:
            move_ref(store, name, target, "refresh" if refresh else "first pin", entry.number if entry else 0)
        except RefMoved:  # another planner pinned it at this moment: both go on with the same one
            return _spec_of(node, store, refresh=False)
    return spec


def _why(
    node: RecipeNode, payload: dict[str, Any], key: str, planned: Mapping[str, PlannedNode], last_run: Run | None
) -> list[str]:
    """Why the node has no checkpoint, by comparison with the recipe's last run."""
    before = last_run.nodes.get(node.name) if last_run else None
    if last_run is None or before is None:
        return ["never computed in this store"]
    if before.key == key:
        return [f"not finished by run {last_run.id}" if before.state != HIT else "its checkpoint was collected"]
    reasons = spec_changes(before.payload["spec"], payload["spec"])
    for name in ("version", "generation"):
        if before.payload[name] != payload[name]:
            reasons.append(f"{name} {before.payload[name]} -> {payload[name]}")
    slots = {slot: planned[upstream].name for slot, upstream in node.inputs.items()}
    slots |= {slot: f"{kind}@{digits}" for slot, (kind, digits) in node.standing.items()}
    reasons += [
        f"upstream {slots[slot]}" for slot, k in payload["inputs"].items() if before.payload["inputs"].get(slot) != k
    ]
    return reasons


def spec_changes(before: Any, after: Any, path: str = "spec") -> list[str]:
    """One line a changed field: `spec.jaccard 0.80 -> 0.85`."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(dict.fromkeys([*before, *after]))
        return [c for n in names for c in spec_changes(before.get(n), after.get(n), f"{path}.{n}")]
    if before == after:
        return []
    return [f"{path} {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return (
        text
        if len(text) <= 40
        else f"{text[:36]}… ({len(value)} items)"
        if isinstance(value, list)
        else f"{text[:39]}…"
    )


def _standing_shards(store: Store, path: NodePath) -> tuple[int, int]:
    """Shards planned and receipts standing, by one listing and a read a stage."""
    receipts = list(store.list(f"{path.root}/receipts/"))
    if not receipts:
        return 0, 0
    plans = [entry.path for entry in store.list(f"{path.root}/shards/")]
    num_shards = sum(len(json.loads(data)) for data in store.get_many(plans) if data is not None)
    return max(num_shards, len(receipts)), len(receipts)
