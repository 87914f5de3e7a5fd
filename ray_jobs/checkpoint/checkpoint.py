"""A finished node as the nodes after it see it: files by name, checksummed as they are read."""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store, StoreError

PIECE_BYTES = 32 << 20


class DamagedOutput(StoreError):
    """An object's bytes are not those that its receipt names."""


@dataclass(frozen=True)
class Checkpoint:
    """Picklable: a store's address and a manifest."""

    store: Store
    manifest: Manifest

    @classmethod
    def open(cls, store: Store, node: str, key: str) -> "Checkpoint":
        """Raises FileNotFoundError when the node is not done, or was collected."""
        manifest = read_manifest(store, NodePath(node, key))
        if manifest is None:
            raise FileNotFoundError(
                f"{store.url} holds no finished {node} {key[:16]}: it was never computed here, or "
                "collected as garbage; `headrace run` computes it again"
            )
        return cls(store, manifest)

    @property
    def node(self) -> str:
        return self.manifest.node

    @property
    def key(self) -> str:
        return self.manifest.key

    def files(self, name: str, stage: str | None = None) -> list[OutputFile]:
        """All outputs called `name`, in the order of (stage, shard)."""
        return [file for file in self.manifest.outputs if file.name == name and stage in {None, file.stage}]

    def file(self, name: str, stage: str | None = None) -> OutputFile:
        """The one output called `name`."""
        found = self.files(name, stage)
        assert len(found) == 1, f"{self.node} has {len(found)} outputs {name!r}"
        return found[0]

    def read(self, file: OutputFile) -> bytes:
        return read_checked(self.store, file)

    def url(self, file: OutputFile) -> str:
        return self.store.url_of(file.path)

    def local_path(self, file: OutputFile) -> Path:
        """A local file with the output's content, to memory-map: the store's own, or a checked download."""
        return local_copy(self.store, file)


def read_checked(store: Store, file: OutputFile) -> bytes:
    """The output's bytes.

    Raises:
        DamagedOutput: they are gone, or differ from what the receipt names.
    """
    data = store.get(file.path)
    if data is None:
        raise _gone(store, file)
    if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise _damaged(store, file)
    return data


def _gone(store: Store, file: OutputFile) -> DamagedOutput:
    return DamagedOutput(
        f"{store.url_of(file.path)} is gone: `headrace verify` lists what is, `headrace run` rebuilds it"
    )


def _damaged(store: Store, file: OutputFile) -> DamagedOutput:
    return DamagedOutput(
        f"{store.url_of(file.path)} does not match its checksum: restore it from a copy, or "
        "`headrace verify --deep --withdraw` and run again: just its shard is computed"
    )


def cache_folder() -> Path:
    """Where downloads and compiled kernels of this machine are kept; HEADRACE_CACHE moves it."""
    default = Path(tempfile.gettempdir()) / f"headrace-cache-{os.getuid()}"
    folder = Path(os.environ.get("HEADRACE_CACHE", default))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to another user, who could change what is read: set HEADRACE_CACHE")
    return folder


def local_copy(store: Store, file: OutputFile) -> Path:
    local = store.local_path(file.path)
    if local is not None:
        return local
    target = cache_folder() / "outputs" / f"{file.sha256}-{file.name}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        try:
            _download(store, file, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def _download(store: Store, file: OutputFile, target: Path) -> None:
    """Piece by piece: outputs may be larger than memory."""
    digest = hashlib.sha256()
    with target.open("wb") as written:
        for start in range(0, file.bytes, PIECE_BYTES):
            try:
                piece = store.get_range(file.path, start, min(PIECE_BYTES, file.bytes - start))
            except FileNotFoundError:
                raise _gone(store, file) from None
            digest.update(piece)
            written.write(piece)
    if digest.hexdigest() != file.sha256:
        raise _damaged(store, file)
