"""Components of a graph that no one machine holds: large-star and small-star in turn, until nothing changes.

Source: Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii, "Connected Components in MapReduce and Beyond" (SoCC 2014).
Of each document u with its neighbours, m being the smallest of them all:

    large-star   joins every larger neighbour with m
    small-star   joins every smaller neighbour, and u, with m

Neither changes what is connected; together they leave stars around the first member of each component, after a number
of rounds that grows with the logarithm of the longest chain (squared, at worst).

A shard is a range of documents with all their edges. Pairs are (document, neighbour), sent to the document's range:
to small-star under the larger end only, to large-star under both.
"""

import numpy as np
import numpy.typing as npt

from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.dedup.candidates import Numbers, hash_pairs
from ray_jobs.dedup.clustering import cut_by_first, members_output, read_range
from ray_jobs.dedup.corpus import Corpus
from ray_jobs.files.parts import PAIR, pairs_of, parted_file, unique_rows

MOST_ROUNDS = 40
"""Chains of 2^40 documents end within these; more would be a mistake of ours."""


def small_star(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """One range's documents, joined with the smallest neighbour that is smaller than they."""
    rows = neighbours(corpus, shard["stage"], shard["range"])
    documents, least = smallest(rows)
    of_row = least[np.searchsorted(documents, rows["first"])]
    others = rows["second"] != of_row
    joined = unique_rows(np.concatenate([pairs_of(rows["second"][others], of_row[others]), pairs_of(documents, least)]))
    both = np.concatenate([joined, pairs_of(joined["second"], joined["first"])])
    return _output(corpus, both, {})


def large_star(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """One range's documents: their larger neighbours, joined with the smallest neighbour of all."""
    rows = neighbours(corpus, shard["stage"], shard["range"])
    documents, least = smallest(rows)
    least = np.minimum(least, documents)
    of_row = least[np.searchsorted(documents, rows["first"])]
    larger = rows["second"] > rows["first"]
    found = unique_rows(pairs_of(rows["second"][larger], of_row[larger]))
    # What entered, whatever its order: equal sums of two rounds say that nothing changes any more.
    fingerprint = int(np.bitwise_and(hash_pairs(rows["first"].copy(), rows["second"].copy()).sum(), (1 << 62) - 1))
    return _output(corpus, found, {"fingerprint": fingerprint})


def finish(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """The stage "clusters" of one range: of each document the centre of its star."""
    rows = neighbours(corpus, shard["stage"], shard["range"])
    documents, least = smallest(rows)
    attached = read_range(corpus.store, corpus.files("edges", "attached.parts"), shard["range"])
    alone = np.setdiff1d(attached["first"], documents)
    members = np.concatenate([documents, alone])
    component = np.concatenate([np.minimum(least, documents), alone])
    order = np.argsort(members)
    return members_output(corpus, members[order], component[order], attached)


def neighbours(corpus: Corpus, stage: int, number: int) -> npt.NDArray[np.void]:
    """The different pairs of one range, ascending, as the round before left them; round 0 is the stage "edges"."""
    files = corpus.files("edges", "edges.parts") if stage == 0 else corpus.files(f"stars-{stage:02d}", "stars.parts")
    return unique_rows(read_range(corpus.store, files, number))


def smallest(rows: npt.NDArray[np.void]) -> tuple[Numbers, Numbers]:
    """Each document of the ascending pairs, and its smallest neighbour."""
    documents, first = np.unique(rows["first"], return_index=True)
    return documents, rows["second"][first]


def _output(corpus: Corpus, rows: npt.NDArray[np.void], counters: dict[str, int]) -> ShardOutput:
    assert rows.dtype == PAIR
    return ShardOutput({"stars.parts": parted_file(cut_by_first(corpus, rows), len(rows))}, counters)
