"""Stage "duplicates": the rule of removal applied to each partition's members, and who is dropped for whom."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.dedup.corpus import LEVEL_BITS, Corpus
from ray_jobs.dedup.routing import VERDICTS, member_schema
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.parts import cut_table, parted_file, read_tables
from ray_jobs.files.ranges import read_rows

PLACE_MASK = (1 << LEVEL_BITS) - 1


def find(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """The duplicates among one partition's members, a part for each group of this crawl."""
    from ray_jobs.dedup import minhash, verify
    from ray_jobs.dedup.signing import near_keys

    spec = corpus.spec
    table = read_tables(
        corpus.store, corpus.files("routed", "routed.parts"), shard["partition"], member_schema(spec.num_permutations)
    )
    sizes = np.unique(table["component"].to_numpy(), return_counts=True)[1]
    table = _in_order(table)
    documents = table["document"].to_numpy()
    members = verify.Members(
        minhash.rows_of(table["signature"], np.uint32),
        minhash.rows_of(table["exact"], np.uint64),
        minhash.rows_of(table["url"], np.uint64) if spec.same_url else np.zeros((len(documents), 2), np.uint64),
        documents < np.uint64(corpus.first_own),
        table["simhash"].to_numpy(),
    )
    buckets = verify.buckets(near_keys(corpus, members.signed, members.simhash), corpus.plan.num_bands)
    doubt = verify.doubt(spec.jaccard, spec.num_permutations)
    doubtful = np.flatnonzero(verify.doubtful_fixed(members, buckets, doubt, spec.max_bucket))
    shingles, offsets = shingle_sets(corpus, table, documents, doubtful)
    table = table.drop_columns(["shingles"])
    verdicts = verify.find_duplicates(
        members, buckets, shingles, offsets, doubt, spec.jaccard, spec.max_bucket, spec.simhash_bits or 0
    )

    dropped = np.flatnonzero(verdicts.rule)
    found = pa.table(
        {
            "document": documents[dropped],
            "rule": [verify.RULES[rule] for rule in verdicts.rule[dropped].tolist()],
            "duplicate_of": table["id"].take(pa.array(verdicts.duplicate_of[dropped])),
            "similarity": verdicts.similarity[dropped],
            "verified_by": np.where(
                verdicts.rule[dropped] != verify.MINHASH,
                "hash",
                np.where(verdicts.by_sets[dropped], "sets", "signature"),
            ).tolist(),
        }
    ).cast(VERDICTS)
    starts = np.array(corpus.level.group_starts(), dtype=np.uint64) + np.uint64(corpus.first_own)
    bounds = np.searchsorted(documents[dropped], starts)
    parts = cut_table(found, bounds.tolist())
    return ShardOutput(
        {"duplicates.parts": parted_file(parts, found.num_rows)},
        {
            "members": len(documents),
            "clusters": int((sizes > 1).sum()),
            "pairs_estimated": verdicts.num_estimated,
            "pairs_compared": verdicts.num_compared,
            "earlier_texts_read": len(doubtful),
            "duplicates": len(dropped),
        },
        {
            "cluster_sizes": dict(sorted(Counter(size_range(size) for size in sizes[sizes > 1].tolist()).items())),
            "largest_cluster": int(sizes.max(initial=1)),
        },
    )


def size_range(size: int) -> str:
    """2, 3-4, 5-8, 9-16, …: the bar of a histogram that a cluster of this size falls into."""
    upper = 1 << (size - 1).bit_length()
    return str(size) if size <= 2 else f"{upper // 2 + 1}-{upper}"


def _in_order(table: pa.Table) -> pa.Table:
    """Each document once: an earlier one comes with every component that it may touch."""
    numbers = table["document"].to_numpy()
    if (numbers[1:] > numbers[:-1]).all():
        return table  # as groups of one crawl leave it, which are read in their order: no second copy is made
    return table.take(pa.array(np.unique(numbers, return_index=True)[1]))


def shingle_sets(
    corpus: Corpus, table: pa.Table, documents: npt.NDArray[np.uint64], doubtful: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Shingle sets of all members, end to end, and their offsets; earlier ones have theirs where they are in doubt.

    Those of this crawl came with the members, and stay in the buffers of their column; earlier documents stand before
    them.
    """
    from ray_jobs.dedup import minhash

    num_earlier = int(np.searchsorted(documents, np.uint64(corpus.first_own)))
    data, ends = text_buffers(table["shingles"].slice(num_earlier))
    sets = data[ends[0] : ends[-1]].view("<u4").astype(np.uint32, copy=False)
    sizes = np.zeros(len(documents), dtype=np.int64)
    sizes[num_earlier:] = np.diff(ends) // sets.itemsize
    if len(doubtful):
        texts = earlier_texts(corpus, documents[doubtful].tolist(), table["id"].take(pa.array(doubtful)).to_pylist())
        found, found_ends = minhash.shingle_sets(*minhash.normalise(*text_buffers(texts)), corpus.spec.shingle_words)
        sizes[doubtful] = np.diff(found_ends)
        sets = np.concatenate([found, sets])
    sets.flags.writeable = False  # whichever it is: one type for the kernel
    return sets, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def earlier_texts(corpus: Corpus, numbers: Sequence[int], ids: Sequence[str]) -> pa.LargeStringArray:
    """Texts of documents that earlier crawls kept, in the order asked for; of their files just the pages that hold them
    are read."""
    wanted: dict[tuple[int, int], list[str]] = {}
    for number, id in zip(numbers, ids, strict=True):
        level = number >> LEVEL_BITS
        starts = corpus.chain.levels[level].level.file_starts()
        file = int(np.searchsorted(starts, number & PLACE_MASK, side="right")) - 1
        wanted.setdefault((level, file), []).append(id)
    parts = []
    for (level, file), names in sorted(wanted.items()):
        documents = corpus.chain.levels[level].documents.get(file)
        found = read_rows(corpus.store, documents, ["id", "text"], "id", names) if documents else None
        if found is None or found.num_rows != len(names):
            raise NodeFailed(
                f"of {len(names)} documents that input {file} of crawl {level} of this corpus kept, not all can be "
                f"read, such as {names[0]}: `headrace verify --deep --withdraw`, then run that crawl's dedup again"
            )
        parts.append(found)
    if not parts:
        return pa.array([], pa.large_string())
    table = pa.concat_tables(parts).combine_chunks()
    place = {id: row for row, id in enumerate(table["id"].to_pylist())}
    texts = table["text"].take(pa.array([place[id] for id in ids])).cast(pa.large_binary())
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
