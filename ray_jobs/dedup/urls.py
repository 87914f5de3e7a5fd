"""Documents by their URLs: those with the same one, and those that a retraction names."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ray_jobs.checkpoint.retraction import Retracted, normalised_url, read_retraction
from ray_jobs.checkpoint.store import Store


def url_hashes(urls: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """xxh3-128 of each normalised URL: uint64 [n, 2]; zeros where a document has none."""
    digest, nothing = xxhash.xxh3_128_digest, bytes(16)
    hashes = [digest(normalised_url(url).encode()) if url else nothing for url in urls.to_pylist()]
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 2)


def is_retracted(
    store: Store, digests: tuple[str, ...], ids: pa.ChunkedArray, urls: pa.ChunkedArray
) -> npt.NDArray[np.bool_]:
    """bool [n]: whether some retraction names the document."""
    if not digests:
        return np.zeros(len(ids), dtype=np.bool_)
    retracted = _retracted(store, digests)
    named = [retracted.names(id, url) for id, url in zip(ids.to_pylist(), urls.to_pylist(), strict=True)]
    return np.array(named, dtype=np.bool_)


@lru_cache(maxsize=4)
def _retracted(store: Store, digests: tuple[str, ...]) -> Retracted:
    return Retracted.by([read_retraction(store, digest) for digest in digests])
