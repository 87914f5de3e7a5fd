"""Retractions: documents that must leave the corpus, as lists in the store.

    retractions/<digest>.json    create-only; what one `headrace retract` named
    refs/retractions/…           the log: its highest entry names all that hold

They are part of the spec of every deduplication planned after them, so that the next run builds the corpus without
these documents, and with those back that were dropped in their favour.
"""

import hashlib

from ray_jobs.checkpoint.keys import canonical_json
from ray_jobs.checkpoint.refs import move_ref, read_ref
from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store, StoreError

REF = "retractions"
DIGEST_DIGITS = 16


class Retraction(Record):
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    """In lower case; every host below one counts too."""
    crawls: tuple[str, ...] = ()
    """First parts of ids."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.model_dump()).encode()).hexdigest()[:DIGEST_DIGITS]


def standing_retractions(store: Store) -> tuple[str, ...]:
    """Digests of all that hold, sorted."""
    entry = read_ref(store, REF)
    return tuple(entry.target["digests"]) if entry else ()


def read_retraction(store: Store, digest: str) -> Retraction:
    """Raises StoreError where the list is gone."""
    data = store.get(_path(digest))
    if data is None:
        raise StoreError(f"{store.url_of(_path(digest))} is gone: restore it from a copy, or retract anew")
    return Retraction.model_validate_json(data)


def retract(store: Store, retraction: Retraction, reason: str) -> str:
    """Writes the list and makes it hold; its digest. One that holds already changes nothing.

    Raises:
        RefMoved: someone else retracts at this moment; do it again.
    """
    store.create(_path(retraction.digest), retraction.to_json())
    entry = read_ref(store, REF)
    standing = standing_retractions(store)
    if retraction.digest not in standing:
        target = {"digests": sorted({*standing, retraction.digest})}
        move_ref(store, REF, target, reason, entry.number if entry else 0)
    return retraction.digest


def _path(digest: str) -> str:
    return f"retractions/{digest}.json"
