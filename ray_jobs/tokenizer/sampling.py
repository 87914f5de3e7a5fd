"""Choosing documents by a hash of their id: the same ones whatever the shards, their order and the number of
workers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash


def places(ids: Sequence[str], purpose: str, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id, uniform and independent for every (purpose, seed).

    The documents below s are a random share s of all, and hold those of every smaller share.
    """
    prefix = xxhash.xxh3_64_intdigest(f"{purpose}/{seed}".encode())
    digest = xxhash.xxh3_64_intdigest
    hashes = np.fromiter((digest(name.encode(), prefix) for name in ids), dtype=np.uint64, count=len(ids))
    return (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
