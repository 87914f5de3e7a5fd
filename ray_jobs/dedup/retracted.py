"""Which documents a retraction names: by URL, by domain (and all hosts below it), or by crawl.

A retraction is a list that stands in the store (`ray_jobs.checkpoint.retraction`); its digest is part of the spec.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.checkpoint.retraction import read_retraction
from ray_jobs.checkpoint.store import Store
from ray_jobs.dedup.sources import hosts_of
from ray_jobs.dedup.urls import normalised_url


@lru_cache(maxsize=4)
def _union(store: Store, digests: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """URLs (normalised), domains and crawls that the retractions name."""
    read = [read_retraction(store, digest) for digest in digests]
    urls = frozenset(normalised_url(url) for one in read for url in one.urls)
    return urls, frozenset(d for one in read for d in one.domains), frozenset(c for one in read for c in one.crawls)


def is_retracted(
    store: Store, digests: tuple[str, ...], ids: pa.ChunkedArray, urls: pa.ChunkedArray
) -> npt.NDArray[np.bool_]:
    """bool [n]: whether some retraction names the document."""
    if not digests:
        return np.zeros(len(ids), dtype=np.bool_)
    named, domains, crawls = _union(store, digests)
    return np.array(
        [
            id.partition("/")[0] in crawls
            or _below(host, domains)
            or (url is not None and normalised_url(url) in named)
            for id, url, host in zip(ids.to_pylist(), urls.to_pylist(), hosts_of(urls).to_pylist(), strict=True)
        ],
        dtype=np.bool_,
    )


def _below(host: str, domains: frozenset[str]) -> bool:
    parts = host.split(".")
    return any(".".join(parts[i:]) in domains for i in range(len(parts)))
