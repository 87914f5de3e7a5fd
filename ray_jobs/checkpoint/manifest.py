"""The manifest: the one record whose existence means that a node is done."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from ray_jobs.checkpoint.keys import content_digest
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import OutputFile, Receipt, Record
from ray_jobs.checkpoint.store import Store

FORMAT = 1


class InputRef(Record):
    """An upstream checkpoint, with the digest of the content that was read."""

    node: str
    key: str
    content_digest: str


class Code(Record):
    """What computed the node. None of it is hashed; the plan reports DRIFT by `digest`."""

    version: int
    digest: str
    """sha256 over the sources of the node's room."""
    git_revision: str | None = None
    lock_digest: str | None = None
    python: str = ""


class Quarantined(Record):
    """A shard that was given up, within the spec's limit."""

    stage: str
    shard: int
    reason: str


class StageEnd(Record):
    """A fan-out is over. The first attempt that gets there decides which shards all later ones go on without."""

    attempt: str
    quarantined: tuple[Quarantined, ...] = ()


class Manifest(Record):
    """The commit of one node: what was computed, from what, by what, and where its files are."""

    format: int = FORMAT
    node: str
    key: str
    payload: dict[str, Any]
    """{node, version, spec, inputs, generation}: what the key is the hash of."""
    inputs: dict[str, InputRef]
    output_stages: tuple[str, ...]
    """The stages whose shards are the node's result; those of other stages are intermediate."""
    outputs: tuple[OutputFile, ...]
    counters: dict[str, int]
    metrics: dict[str, float | int | str]
    quarantined: tuple[Quarantined, ...] = ()
    content_digest: str
    code: Code
    resources: dict[str, Any]
    attempt: str
    started: float
    """Seconds since 1970, by the job's clock."""
    seconds: float
    """Wall time of the attempt that committed; earlier attempts' shards are in `cpu_seconds`."""
    cpu_seconds: float
    gpu_seconds: float = 0.0
    world_size: int = 1
    sources: tuple[str, ...] = Field(default=())
    """Digests of the pinned listings that the node's data comes from."""

    @property
    def path(self) -> NodePath:
        return NodePath(self.node, self.key)


def digest_of_receipts(key: str, receipts: Iterable[Receipt], quarantined: Iterable[Quarantined]) -> str:
    shards = [
        (
            receipt.stage,
            receipt.shard,
            [(file.name, file.sha256, file.rows) for file in receipt.files if not file.volatile],
            receipt.counters,
        )
        for receipt in receipts
    ]
    shards += [(given_up.stage, given_up.shard, [("quarantined", "", 0)], {}) for given_up in quarantined]
    return content_digest(key, sorted(shards, key=lambda shard: shard[:2]))


def read_manifest(store: Store, path: NodePath) -> Manifest | None:
    """The node's manifest, or None where the node is not done.

    Raises:
        ValueError: the manifest is damaged, of another node, or of a newer format.
    """
    data = store.get(path.manifest)
    return None if data is None else parse_manifest(data, path)


def parse_manifest(data: bytes, path: NodePath) -> Manifest:
    where = path.manifest
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise ValueError(
            f"{where} is damaged ({error}): delete it and run again, its shards will be adopted"
        ) from error
    if isinstance(raw, dict) and raw.get("format", 0) != FORMAT:
        raise ValueError(
            f"{where} has format {raw.get('format')}, this Headrace reads {FORMAT}: use the version that wrote it"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{where} is damaged: delete it and run again, its shards will be adopted\n{error}") from error
    if manifest.node != path.node or not manifest.key.startswith(path.key):
        raise ValueError(
            f"{where} is the manifest of {manifest.node} {manifest.key[:16]}: restore the right one or delete it"
        )
    for file in manifest.outputs:
        if not file.path.startswith(path.root + "/") or "/../" in file.path:
            raise ValueError(
                f"{where} names {file.path}, which is outside its node: restore it from a copy or delete it"
            )
    return manifest


def withdraw(store: Store, path: NodePath, data: Iterable[str]) -> None:
    """Takes back the manifest, then the receipts of the objects at `data`: the next run computes just these."""
    store.delete([path.manifest])
    store.delete({path.receipt_of(file) for file in data})


@dataclass(frozen=True)
class MissingOutput:
    """An output that is gone or has another size than its receipt names."""

    file: OutputFile
    size: int | None
    """Bytes found; None where the object is gone."""

    def __str__(self) -> str:
        found = "gone" if self.size is None else f"{self.size} bytes, not {self.file.bytes}"
        return f"{self.file.path} is {found}"


def missing_outputs(store: Store, manifest: Manifest) -> list[MissingOutput]:
    """Outputs that are gone or have another size, by one paged listing and not a request an object."""
    if not manifest.outputs:
        return []
    sizes = {entry.path: entry.size for entry in store.list(f"{manifest.path.root}/data/")}
    return [
        MissingOutput(file, sizes.get(file.path)) for file in manifest.outputs if sizes.get(file.path) != file.bytes
    ]
