"""Tensors of a training checkpoint: torch.distributed.checkpoint straight into the store.

Objects pass through a temporary file into `Store`, not through fsspec: the store's writes are durable, its reads fresh,
and the checksum is of the bytes that were sent. A checkpoint is read back object by object, each only after its
checksum matches the receipt; that also guards `.metadata`, which is a pickle. The number of ranks may differ between
save and load.
"""

import errno
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ray_jobs.checkpoint.checkpoint import cache_folder
from ray_jobs.checkpoint.store import Store, StoreError
from ray_jobs.pretrain.steps import DamagedStep, StepFile, StepReceipt, StepStore

log = logging.getLogger("headrace")

METADATA = ".metadata"
PART_BYTES = 64 << 20


def save_step(
    steps: StepStore,
    step: int,
    session: str,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    group: dist.ProcessGroup | None = None,
) -> None:
    """Writes a checkpoint from all ranks and publishes it from rank 0. Collective, within `group`."""
    objects = _StoreObjects(steps.store, steps.folder(step, session))
    dcp.save(tensors, storage_writer=_StoreWriter(objects), process_group=group, no_dist=False)
    gathered: list[list[StepFile]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, objects.written, group=group)
    if dist.get_rank() == 0:
        files = tuple(sorted((file for part in gathered for file in part), key=lambda file: file.name))
        receipt = StepReceipt(
            step=step,
            session=session,
            world_size=dist.get_world_size(),
            files=files,
            state=json.loads(json.dumps(state)),
        )
        if not steps.publish(receipt):
            log.info("step %d was published by another session, whose checkpoint stands", step)


def load_step(steps: StepStore, receipt: StepReceipt, tensors: dict[str, Tensor]) -> None:
    """Fills `tensors` from a checkpoint, resharding as needed. Collective.

    Raises:
        DamagedStep: on every rank, if any rank found an object gone or changed; `tensors` are then partly filled.
    """
    objects = _StoreObjects(steps.store, steps.folder(receipt.step, receipt.session), receipt.files)
    # DCP takes any failure to read its metadata for its absence: so it is looked at first.
    damage: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(damage, objects.damage_of(METADATA))
    found = next(filter(None, damage), None)
    if found is not None:
        raise DamagedStep(found)
    with _damage_named():
        dcp.load(tensors, storage_reader=_StoreReader(objects))


def read_tensors(steps: StepStore, receipt: StepReceipt, prefix: str) -> dict[str, Tensor]:
    """The whole tensors whose names begin with `prefix`, without it, on the CPU and in one process.

    Raises:
        DamagedStep: an object is gone or changed.
    """
    objects = _StoreObjects(steps.store, steps.folder(receipt.step, receipt.session), receipt.files)
    reader = _StoreReader(objects)
    tensors = {
        name: torch.empty(metadata.size, dtype=metadata.properties.dtype)
        for name, metadata in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(metadata, TensorStorageMetadata)
    }
    with _damage_named(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as is meant here
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


@contextmanager
def _damage_named() -> Iterator[None]:
    """DCP gathers what went wrong on any rank into one exception; damage is taken out of it."""
    try:
        yield
    except CheckpointException as error:
        damage = [cause for cause, _ in error.failures.values() if isinstance(cause, DamagedStep)]
        if not damage:
            raise
        raise damage[0] from None


class _StoreObjects(FileSystemBase):
    """What DCP's writer and reader ask of a file system, over the objects of one checkpoint in a Store."""

    def __init__(self, store: Store, folder: str, expected: tuple[StepFile, ...] = ()):
        self.store, self.folder = store, folder
        self.expected = {file.name: file for file in expected}
        self.written: list[StepFile] = []
        self._unnamed: dict[str, bytes] = {}

    def damage_of(self, name: str) -> str | None:
        """What is wrong with an object, in words."""
        try:
            with self._reading(name):
                return None
        except DamagedStep as damage:
            return str(damage)

    def create_stream(self, path: str | os.PathLike, mode: str) -> AbstractContextManager[IO[bytes]]:  # type: ignore[override]
        name = Path(path).name
        return self._reading(name) if mode == "rb" else self._writing(name)

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        with _room_told(), tempfile.TemporaryDirectory(dir=cache_folder(), prefix="step-") as folder:
            local = Path(folder) / name
            with local.open("wb") as stream:
                yield stream
            if name == f"{METADATA}.tmp":  # small; DCP gives it its name when it is whole
                self._unnamed[name] = local.read_bytes()
                return
            with local.open("rb") as stream:
                digest = _sha256(stream)
            self.store.put_file(f"{self.folder}/{name}", local)
            self.written.append(StepFile(name=name, bytes=local.stat().st_size, sha256=digest))

    def rename(self, path: str | os.PathLike, new_path: str | os.PathLike) -> None:
        data, name = self._unnamed.pop(Path(path).name), Path(new_path).name
        self.store.put(f"{self.folder}/{name}", data)
        self.written.append(StepFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))

    @contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        file = self.expected.get(name)
        if file is None:
            raise FileNotFoundError(name)
        path = f"{self.folder}/{name}"
        try:
            with self._opened(path, file.bytes) as stream:
                if _sha256(stream) != file.sha256:
                    raise DamagedStep(f"{self.store.url_of(path)} does not match the checksum in its receipt")
                stream.seek(0)
                yield stream
        except FileNotFoundError:
            raise DamagedStep(f"{self.store.url_of(path)} is gone") from None

    @contextmanager
    def _opened(self, path: str, size: int) -> Iterator[IO[bytes]]:
        """The store's own file, or a download that lasts as long as it is read."""
        own = self.store.local_path(path)
        if own is not None:
            with own.open("rb") as stream:
                yield stream
            return
        with tempfile.TemporaryFile(dir=cache_folder(), prefix="step-") as stream:
            for start in range(0, size, PART_BYTES):
                stream.write(self.store.get_range(path, start, min(PART_BYTES, size - start)))
            stream.seek(0)
            yield stream

    def concat_path(self, path: str | os.PathLike, suffix: str) -> str:
        return f"{path}/{suffix}"

    def init_path(self, path: str | os.PathLike) -> str | os.PathLike:
        return path

    def mkdir(self, path: str | os.PathLike) -> None:
        """An object store has no folders, and the file store makes its own."""

    def exists(self, path: str | os.PathLike) -> bool:
        return False  # every name is new: it holds the session

    def rm_file(self, path: str | os.PathLike) -> None:
        raise AssertionError(f"a checkpoint's objects are never replaced: {path}")

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        return True


@contextmanager
def _room_told() -> Iterator[None]:
    """Says of a full disk that it is not the store's, but that of the temporary files."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full: BaseException | None = error  # torch.save ends with an error of its own on top of the stream's
        while full is not None and not isinstance(full, OSError):
            full = full.__context__
        if full is None or isinstance(full, StoreError) or full.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise StoreError(
            full.errno,
            f"{cache_folder()} has no room for this rank's part of the checkpoint: free space there, or set "
            "HEADRACE_CACHE to a folder on a larger disk",
        ) from error


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while part := stream.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


class _StoreWriter(FileSystemWriter):
    def __init__(self, objects: _StoreObjects):
        # The store syncs what it is given; syncing the temporary files as well would only cost time.
        super().__init__(objects.folder, sync_files=False)
        self.fs = objects  # type: ignore[assignment] # torch declares its own, and uses only what both have


class _StoreReader(FileSystemReader):
    def __init__(self, objects: _StoreObjects):
        super().__init__(objects.folder)
        self.fs = objects  # type: ignore[assignment] # torch declares its own, and uses only what both have
