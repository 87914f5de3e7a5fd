"""The lease: who works on a node, and how far. Advisory: it saves money, never correctness.

The holder rewrites the record every few seconds with a higher beat. An observer judges by its own clock: a lease whose
record did not change for `EXPIRY_SECONDS` of the observer's time is dead. No two machines' clocks are compared.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store

BEAT_SECONDS = 2.0
# Ten missed beats: longer than a garbage collection pause or a slow PUT, short beside a node's work.
EXPIRY_SECONDS = 20.0
POLL_SECONDS = 1.0


class LeaseRecord(Record):
    attempt: str
    beat: int
    host: str
    pid: int
    process_started: str
    """Start time of the process in the kernel's ticks, so that a pid used again is not taken for the holder."""
    submission: str | None = None
    reads: tuple[str, ...] = ()
    """Folders of the nodes that the holder reads: garbage collection leaves them alone."""
    progress: dict[str, Any] = Field(default={})


class Lease:
    """Held by one job while it computes a node. Use as a context manager after `acquire`."""

    def __init__(
        self, store: Store, path: str, attempt: str, submission: str | None = None, reads: tuple[str, ...] = ()
    ):
        self._store, self._path = store, path
        self._attempt, self._submission, self._reads = attempt, submission, reads
        self._beat = 0
        self._progress: dict[str, Any] = {}
        self._stopped = threading.Event()
        self._lost = False
        self._thread: threading.Thread | None = None

    def acquire(self, finished: Callable[[], bool], waiting: Callable[[LeaseRecord], None]) -> bool:
        """Takes the lease, waiting while a live holder works.

        Args:
            finished: asked while waiting; True means that the holder has committed the node.
            waiting: called once for each holder that is waited for.

        Returns:
            True when the lease is ours, False when the node got finished meanwhile.
        """
        told: str | None = None
        seen: tuple[str, int] | None = None
        seen_at = time.monotonic()
        while True:
            record = read_lease(self._store, self._path)
            if record is None:
                if self._store.create(self._path, self._next().to_json()):
                    return True
                continue  # another was quicker: wait for it
            if not _may_live(record):
                break
            if seen != (record.attempt, record.beat):
                seen, seen_at = (record.attempt, record.beat), time.monotonic()
            elif time.monotonic() - seen_at > EXPIRY_SECONDS:
                break
            if finished():
                return False
            if told != record.attempt:
                told = record.attempt
                waiting(record)
            time.sleep(POLL_SECONDS)
        self._write()
        return True

    def __enter__(self) -> "Lease":
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # a lease that stays behind expires; the node's own result matters more
            record = read_lease(self._store, self._path)
            if record is not None and record.attempt == self._attempt:
                self._store.delete([self._path])

    def show(self, progress: dict[str, Any]) -> None:
        """What the next beat carries."""
        self._progress = progress

    def _keep_beating(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                record = read_lease(self._store, self._path)
                # Another took over while we were silent. Both may go on: receipts decide, shard by shard.
                if record is None or record.attempt == self._attempt:
                    self._write()
            except OSError:
                continue  # a missed beat; the work itself reports a store that stays away

    def _write(self) -> None:
        self._store.put(self._path, self._next().to_json())

    def _next(self) -> LeaseRecord:
        self._beat += 1
        return LeaseRecord(
            attempt=self._attempt,
            beat=self._beat,
            host=host_id(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()) or "",
            submission=self._submission,
            reads=self._reads,
            progress=self._progress,
        )


def read_lease(store: Store, path: str) -> LeaseRecord | None:
    """The lease, or None. A damaged one reads as that of a process that is gone."""
    data = store.get(path)
    if data is None:
        return None
    try:
        return LeaseRecord.model_validate_json(data)
    except ValidationError:
        return LeaseRecord(attempt="", beat=0, host=host_id(), pid=0, process_started="")


def host_id() -> str:
    """The machine since its last boot, and its container: a pid means something only there."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return "/".join(
        [
            socket.gethostname(),
            boot.read_text().strip() if boot.exists() else "",
            str(container.readlink()) if container.is_symlink() else "",
        ]
    )


def process_started(pid: int) -> str | None:
    """When the process started, or None when it is gone (or a zombie, or cannot be seen)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _may_live(record: LeaseRecord) -> bool:
    if record.host != host_id() or not Path("/proc/self/stat").exists():
        return True
    return process_started(record.pid) == record.process_started
