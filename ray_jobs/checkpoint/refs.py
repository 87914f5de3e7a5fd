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


def _entry(name: str, number: int) -> str:
    return f"{_folder(name)}{number:08d}.json"


def _numbers(store: Store, name: str) -> list[int]:
    """The log's numbers in order; a ref whose name goes on below this one's is another ref."""
    names = [entry.path.removeprefix(_folder(name)) for entry in store.list(_folder(name))]
    return sorted(int(found.removesuffix(".json")) for found in names if "/" not in found)


def read_log(store: Store, name: str) -> list[RefEntry]:
    """All entries, oldest first."""
    records = store.get_many([_entry(name, number) for number in _numbers(store, name)])
    return [RefEntry.model_validate_json(data) for data in records if data is not None]


def read_ref(store: Store, name: str) -> RefEntry | None:
    """The highest entry, or None where the ref does not exist."""
    numbers = _numbers(store, name)
    data = store.get(_entry(name, numbers[-1])) if numbers else None
    return None if data is None else RefEntry.model_validate_json(data)


def list_refs(store: Store) -> list[str]:
    """Names of all refs, sorted."""
    return sorted({entry.path.removeprefix("refs/").rpartition("/")[0] for entry in store.list("refs/")})


def move_ref(store: Store, name: str, target: dict[str, Any], reason: str, expected: int) -> RefEntry:
    """Compare-and-swap: entry `expected` (0 for a new ref) is the highest, and the next becomes `target`.

    Raises:
        RefMoved: another writer was first; read the ref again and decide anew.
    """
    assert expected == 0 or store.size(_entry(name, expected)) is not None, f"ref {name} has no entry {expected}"
    entry = RefEntry(number=expected + 1, target=target, reason=reason, written=time.time(), nonce=secrets.token_hex(8))
    if not store.create(_entry(name, entry.number), entry.to_json()):
        raise RefMoved(f"ref {name} has moved past {expected} meanwhile: read it again and decide anew")
    return entry
