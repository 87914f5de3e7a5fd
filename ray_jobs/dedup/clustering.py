"""Stages "edges" and "clusters": which documents must be compared with one another, and where.

edges      a shard for every range of keys, read out of every run:
             edges.parts     pairs of this crawl's documents that share a key, by ranges of documents
             attached.parts  (document, one of an earlier crawl), the same
clusters   components of the edges, and what is attached to them:
             members.parts   (document, component), a part for each source of documents
             counts.parts    how many members the components of each range have
           One shard up to MOST_IN_MEMORY documents; of larger corpora the stages of `stars.py` come before, and every
           range of documents is a shard.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ray_jobs.checkpoint.shards import OutputFile, ShardOutput
from ray_jobs.checkpoint.store import Store
from ray_jobs.dedup.candidates import Numbers, components, edges, unique_pairs
from ray_jobs.dedup.corpus import SIGNATURES, Corpus, read_runs
from ray_jobs.files.parts import PAIR, cut, pairs_of, part_bits, parted_file, read_pairs, read_parts

# Entries (key, document) that one reducer sorts: 16 bytes each, and as much again twice while they are sorted.
ENTRIES_A_PART = 1 << 24
# Union-find over all documents takes 8 bytes for each.
MOST_IN_MEMORY = 1 << 27
# Documents of one range of the sharded components, whose edges are sorted in memory: 16 bytes each, and as much again.
DOCUMENTS_A_RANGE = 1 << 23
# A partition holds signatures and shingle sets of its members: about 8 KB each at its peak, for pages of 700 words.
PARTITION_MEMBERS = 100_000
# Ranges of components whose members are counted, to deal out equal partitions.
NUM_COUNTS = 1 << 16


def num_ranges(num_documents: int) -> int:
    """Ranges of documents that components are found in."""
    return 1 if num_documents <= MOST_IN_MEMORY else -(-num_documents // DOCUMENTS_A_RANGE)


def range_ends(corpus: Corpus) -> Numbers:
    """One past the last document of each range."""
    ranges = num_ranges(corpus.num_documents)
    ends = (np.arange(1, ranges + 1, dtype=np.uint64) * np.uint64(corpus.num_documents)) // np.uint64(ranges)
    return ends + np.uint64(corpus.first_own)


def cut_by_first(corpus: Corpus, rows: npt.NDArray[np.void]) -> list[memoryview]:
    """Pairs by the range of their first document."""
    rows = rows[np.argsort(rows["first"], kind="stable")]
    return cut(rows, np.searchsorted(rows["first"], range_ends(corpus)))


def find_edges(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """Pairs of documents with a key of this range in common."""
    part, num_parts = shard["part"], corpus.level.num_parts
    own = corpus.files(SIGNATURES, "keys.run")
    new = corpus.store.concurrently(lambda file: read_pairs(corpus.store, file, part, part + 1), own)
    rows = np.concatenate([read_runs(corpus.store, corpus.chain.runs, part, num_parts), *new])
    keys, documents = np.ascontiguousarray(rows["first"]), np.ascontiguousarray(rows["second"])
    del rows, new
    hubs, others = edges(keys, documents, corpus.first_own, part_bits(num_parts), corpus.spec.max_bucket)
    is_earlier = others < np.uint64(corpus.first_own)
    attached = pairs_of(hubs[is_earlier], others[is_earlier])
    found = pairs_of(others[~is_earlier], hubs[~is_earlier])
    return ShardOutput(
        {
            "edges.parts": parted_file(cut_by_first(corpus, found), len(found)),
            "attached.parts": parted_file(cut_by_first(corpus, attached), len(attached)),
        },
        {"entries": len(keys), "edges": len(found), "attached": len(attached)},
    )


def read_range(store: Store, files: Iterable[OutputFile], number: int) -> npt.NDArray[np.void]:
    """The pairs of one range of documents, of all files."""
    found = store.concurrently(lambda file: read_pairs(store, file, number, number + 1), list(files))
    return np.concatenate([np.empty(0, dtype=PAIR), *found])


def cluster_in_memory(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """Components by union-find over the edges of all documents."""
    own = np.uint64(corpus.first_own)

    def all_edges() -> Iterator[tuple[Numbers, Numbers]]:
        for file in corpus.files("edges", "edges.parts"):
            rows = read_pairs(corpus.store, file, 0, 1)
            yield rows["first"] - own, rows["second"] - own
        # What meets earlier documents only is a component too: joined with itself.
        hubs = attached["first"] - own
        yield hubs, hubs

    attached = read_range(corpus.store, corpus.files("edges", "attached.parts"), 0)
    parents = components(corpus.num_documents, all_edges())
    members = np.flatnonzero(parents >= 0)
    component = parents[members].astype(np.uint64) + own
    del parents
    return members_output(corpus, members.astype(np.uint64) + own, component, attached)


def members_output(
    corpus: Corpus, documents: Numbers, component: Numbers, attached: npt.NDArray[np.void]
) -> ShardOutput:
    """The members of one range.

    Args:
        documents: those of this crawl that have a component, ascending.
        component: its first member, for each.
        attached: pairs (one of these documents, one of an earlier crawl).
    """
    of_attached = component[np.searchsorted(documents, attached["first"])]
    earlier, joined = unique_pairs(np.ascontiguousarray(attached["second"]), of_attached)
    rows = pairs_of(np.concatenate([earlier, documents]), np.concatenate([joined, component]))
    rows = rows[np.argsort(rows["first"], kind="stable")]
    ends = np.searchsorted(rows["first"], np.array([source.end for source in corpus.sources()], dtype=np.uint64))
    assert not len(rows) or ends[-1] == len(rows), "every member stands in some source"
    counts = np.bincount(
        (rows["second"] - np.uint64(corpus.first_own)).astype(np.int64) // count_width(corpus),
        minlength=num_counts(corpus),
    )
    return ShardOutput(
        {
            "members.parts": parted_file(cut(rows, ends), len(rows)),
            "counts.parts": parted_file([counts.astype("<u8").tobytes()]),
        },
        {"members": len(rows)},
        {"sources": np.flatnonzero(np.diff(ends, prepend=0)).tolist()},
    )


def count_width(corpus: Corpus) -> int:
    """Documents whose components are counted together."""
    return -(-corpus.num_documents // NUM_COUNTS)


def num_counts(corpus: Corpus) -> int:
    return -(-corpus.num_documents // count_width(corpus))


def cut_partitions(corpus: Corpus) -> tuple[int, ...]:
    """The first component of each partition: of whole components, and of PARTITION_MEMBERS or a little more."""
    counts = np.zeros(num_counts(corpus), dtype=np.int64)
    for file in corpus.files("clusters", "counts.parts"):
        counts += np.frombuffer(read_parts(corpus.store, file, 0, 1)[0], dtype="<u8").astype(np.int64)
    bounds, held = [], PARTITION_MEMBERS
    for place in np.flatnonzero(counts).tolist():
        if held >= PARTITION_MEMBERS:
            bounds.append(corpus.first_own + place * count_width(corpus))
            held = 0
        held += int(counts[place])
    return tuple(bounds)


def sources_with_members(infos: Sequence[dict[str, list[int]]]) -> list[int]:
    """Numbers of the sources that some range has members of."""
    return sorted({source for info in infos for source in info["sources"]})
