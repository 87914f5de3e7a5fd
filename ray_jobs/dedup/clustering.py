"""Stages "edges" and "clusters": which documents must be compared with one another, and where.

edges      a shard for every range of keys, read out of every run: edges.run, pairs that share a key, each once
clusters   components of the edges, and what joins them: members.parts, (document, component), a part for each group of
           documents; components are dealt out to partitions of bounded size that cut none
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.dedup.candidates import Numbers, components, edges, unique_pairs
from ray_jobs.dedup.corpus import Corpus, read_runs
from ray_jobs.dedup.parts import PAIR, cut, pairs_of, part_bits, parted_file, read_pairs

# Entries (key, document) that one reducer sorts: 16 bytes each, and as much again twice while they are sorted.
ENTRIES_A_PART = 1 << 24
# A partition holds signatures and shingle sets of its members: about 4 KB each for pages of 4 KB.
PARTITION_MEMBERS = 100_000


def find_edges(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """Pairs of documents with a key of this range in common."""
    part, num_parts = shard["part"], corpus.level.num_parts
    own = corpus.files("signatures", "keys.run")
    new = corpus.store.concurrently(lambda file: read_pairs(corpus.store, file, part, part + 1), own)
    rows = np.concatenate([read_runs(corpus.store, corpus.chain.runs, part, num_parts), *new])
    keys, documents = np.ascontiguousarray(rows["first"]), np.ascontiguousarray(rows["second"])
    del rows, new
    bits = part_bits(num_parts)
    hubs, others = edges(keys, documents, corpus.first_own, bits, corpus.spec.max_bucket)
    return ShardOutput(
        {"edges.run": parted_file([memoryview(pairs_of(hubs, others).tobytes())], len(hubs))},
        {"entries": len(keys), "edges": len(hubs)},
    )


def cluster(corpus: Corpus) -> ShardOutput:
    """Components by union-find over all edges, in 8 bytes a document of this crawl and 16 an edge to earlier ones."""
    own = np.uint64(corpus.first_own)
    num_documents = corpus.level.file_starts()[-1]
    attached: list[npt.NDArray[np.void]] = []

    def own_edges() -> "list[tuple[Numbers, Numbers]]":
        found = []
        for file in corpus.files("edges", "edges.run"):
            rows = read_pairs(corpus.store, file, 0, 1)
            earlier = rows["second"] < own
            attached.append(rows[earlier])
            hubs = rows["first"] - own
            # A document that meets earlier ones only is a component too: it is joined with itself.
            found.append((hubs, np.where(earlier, hubs, rows["second"] - own)))
        return found

    parents = components(num_documents, own_edges())
    members = np.flatnonzero(parents >= 0)
    joined = np.concatenate([np.empty(0, dtype=PAIR), *attached])
    roots, others = unique_pairs(
        parents[(joined["first"] - own).astype(np.int64)].astype(np.uint64) + own, joined["second"].copy()
    )
    component = np.concatenate([parents[members].astype(np.uint64) + own, roots])
    document = np.concatenate([members.astype(np.uint64) + own, others])
    return members_output(corpus, component, document)


def members_output(corpus: Corpus, component: Numbers, document: Numbers) -> ShardOutput:
    """The members by their documents, a part for each of the corpus's sources; and the partitions of components."""
    roots, sizes = np.unique(component, return_counts=True)
    order = np.lexsort((component, document))
    rows = pairs_of(document[order], component[order])
    sources = corpus.sources()
    ends = np.searchsorted(rows["first"], np.array([source.end for source in sources], dtype=np.uint64))
    assert not len(rows) or ends[-1] == len(rows), "every member stands in some source"
    ranges = Counter(size_range(size) for size in sizes.tolist() if size > 1)
    return ShardOutput(
        {"members.parts": parted_file(cut(rows, ends), len(rows))},
        {"members": len(rows), "clusters": int((sizes > 1).sum())},
        {
            "partitions": cut_partitions(roots, sizes),
            "sources": np.flatnonzero(np.diff(ends, prepend=0)).tolist(),
            "cluster_sizes": {key: ranges[key] for key in sorted(ranges, key=lambda key: int(key.split("-")[0]))},
            "largest_cluster": int(sizes.max(initial=1)),
        },
    )


def cut_partitions(roots: Numbers, sizes: npt.NDArray[np.int64]) -> list[int]:
    """The first component of each partition: of whole components, and of PARTITION_MEMBERS or a little more."""
    bounds, held = [], PARTITION_MEMBERS
    for root, size in zip(roots.tolist(), sizes.tolist(), strict=True):
        if held >= PARTITION_MEMBERS:
            bounds.append(root)
            held = 0
        held += size
    return bounds


def size_range(size: int) -> str:
    """2, 3-4, 5-8, 9-16, …: the bar of a histogram that a cluster of this size falls into."""
    upper = 1 << (size - 1).bit_length()
    return str(size) if size <= 2 else f"{upper // 2 + 1}-{upper}"
