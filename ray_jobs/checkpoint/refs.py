"""Refs: names that move, as numbered create-only logs.

refs/<name>/00000007.json: the highest number is the pointer, and compare-and-swap is creating the next one. Nothing is
overwritten, so the log is the history.
"""

import secrets
import time
from typing import Any

from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store, check_path


class RefEntry(Record):
    number: int
    target: dict[str, Any]
    reason: str
    written: float
    """Seconds since 1970."""
    nonce: str


class RefMoved(RuntimeError):
    """Someone else moved the ref since it was read."""


def _folder(name: str) -> str:
    return f"refs/{check_path(name)}/"


def read_log(store: Store, name: str) -> list[RefEntry]:
    """All entries, oldest first."""
    paths = [entry.path for entry in store.list(_folder(name))]
    return [RefEntry.model_validate_json(data) for data in store.get_many(paths) if data is not None]


def read_ref(store: Store, name: str) -> RefEntry | None:
    paths = [entry.path for entry in store.list(_folder(name))]
    data = store.get(paths[-1]) if paths else None
    return None if data is None else RefEntry.model_validate_json(data)


def move_ref(store: Store, name: str, target: dict[str, Any], reason: str, expected: int) -> RefEntry:
    """Compare-and-swap: entry `expected` (0 for a new ref) is the highest, and the next becomes `target`.

    Raises:
        RefMoved: another writer was first; read the ref again and decide anew.
    """
    entry = RefEntry(number=expected + 1, target=target, reason=reason, written=time.time(), nonce=secrets.token_hex(8))
    if not store.create(f"{_folder(name)}{entry.number:08d}.json", entry.to_json()):
        raise RefMoved(f"ref {name} has moved past {expected} meanwhile: read it again and decide anew")
    return entry
