"""Retractions: documents that must leave the corpus, as lists in the store.

    retractions/<digest>.json    create-only; what one `headrace retract` named
    refs/retractions/…           the log: its highest entry names all that hold

They are part of the spec of every deduplication planned after them, so that the next run builds the corpus without
these documents, and with those back that were dropped in their favour.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Retracted:
    """All that some retractions name."""

    urls: frozenset[str]
    domains: frozenset[str]
    crawls: frozenset[str]

    @classmethod
    def by(cls, retractions: Sequence[Retraction]) -> "Retracted":
        return cls(
            frozenset(normalised_url(url) for one in retractions for url in one.urls),
            frozenset(domain for one in retractions for domain in one.domains),
            frozenset(crawl for one in retractions for crawl in one.crawls),
        )

    def names(self, id: str, url: str | None) -> bool:
        """Whether the document is among them."""
        if id.partition("/")[0] in self.crawls:
            return True
        if not url:
            return False
        if self.urls and normalised_url(url) in self.urls:
            return True
        parts = host_of(url).split(".") if self.domains else []
        return any(".".join(parts[first:]) in self.domains for first in range(len(parts)))


_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^?#]*)([^#]*)")
_OWN_PORT = {"http": ":80", "https": ":443"}


def normalised_url(url: str) -> str:
    """What two URLs share that are the same (RFC 3986, sections 3.5 and 6.2.2.1).

    Scheme and host in lower case, no port where it is the scheme's own, no fragment, "/" for an empty path. Queries
    stay: two pages of one site may differ in nothing else.
    """
    match = _PARTS.match(url)
    if match is None:
        return url.partition("#")[0]
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    user, at, host = authority.rpartition("@")
    host = host.lower().removesuffix(_OWN_PORT.get(scheme, "\0"))
    return f"{scheme}://{user}{at}{host}{path or '/'}{query}"


def host_of(url: str) -> str:
    """In lower case, without port; "" where there is none."""
    match = _PARTS.match(url)
    host = match[2].rpartition("@")[2].lower() if match else ""
    return host if host.startswith("[") else host.partition(":")[0].rstrip(".")


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
