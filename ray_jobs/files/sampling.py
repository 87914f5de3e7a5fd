"""Choosing documents by a hash of their id or text: the same ones whatever the shards, their order and the number of
workers."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash


def places(names: Sequence[str | bytes], purpose: str, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each name (an id, or a text), uniform and independent for every (purpose, seed).

    The documents below s are a random share s of all, and hold those of every smaller share.
    """
    prefix = xxhash.xxh3_64_intdigest(f"{purpose}/{seed}".encode())
    digest = xxhash.xxh3_64_intdigest
    hashes = np.fromiter(
        (digest(name.encode() if isinstance(name, str) else name, prefix) for name in names),
        dtype=np.uint64,
        count=len(names),
    )
    return (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53


def copies(ids: Sequence[str], weight: float, file: str, seed: int) -> npt.NDArray[np.int64]:
    """How often each document of a file is taken, where its source has that weight: ⌊weight⌋ or one more.

    One more have those of the lowest places; how many they are is their share of the file, rounded up or down by a
    number that belongs to the file's name. So n documents become weight · n within less than one, the mean over many
    files is weight · n (systematic sampling; Cochran 1977, chapter 8), and a greater weight takes all that a smaller
    one takes.
    """
    whole = math.floor(weight)
    taken = np.full(len(ids), whole, dtype=np.int64)
    if weight > whole:
        (offset,) = places([file], "weight-rounding", seed)
        more = math.ceil((weight - whole) * len(ids) - offset)
        taken[np.argsort(places(ids, "weight", seed), kind="stable")[: max(0, more)]] += 1
    return taken
