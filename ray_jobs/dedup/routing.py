"""Stage "routed": members of components, with all that they are compared by, sent to the partition of their component.

A shard for every group that holds members, of this crawl and of earlier ones. Texts are read of this crawl's groups
alone, for their shingle sets; earlier documents bring their signatures.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.dedup.clustering import read_range
from ray_jobs.dedup.corpus import Corpus, Source
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.parts import cut_table, parted_file

VERDICTS = pa.schema(
    [
        ("document", pa.uint64()),
        ("rule", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float32()),
        ("verified_by", pa.string()),
    ]
)


def member_schema(num_permutations: int) -> pa.Schema:
    return pa.schema(
        [
            ("document", pa.uint64()),
            ("component", pa.uint64()),
            ("id", pa.string()),
            ("exact", pa.binary(16)),
            ("url", pa.binary(16)),
            ("signature", pa.binary(4 * num_permutations)),
            ("simhash", pa.uint64()),
            ("shingles", pa.large_binary()),  # uint32, sorted; null of earlier documents
        ]
    )


def route(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """One group's members, a part for each partition of components."""
    number = shard["source"]
    source = corpus.sources()[number]
    members = read_range(corpus.store, corpus.files("clusters", "members.parts"), number)
    members = members[np.argsort(members["first"], kind="stable")]
    places = (members["first"] - np.uint64(source.first)).astype(np.int64)
    signed = corpus.read(source.signatures, ["id", "exact", "url", "signature", "simhash"]).take(pa.array(places))
    schema = member_schema(corpus.spec.num_permutations)
    if source.level < len(corpus.chain.levels):
        shingles = pa.nulls(len(places), pa.large_binary())
    else:
        shingles = _shingles(corpus, source, places)
    table = pa.table(
        {
            "document": pa.array(members["first"]),
            "component": pa.array(members["second"]),
            **{name: signed[name] for name in ("id", "exact", "url", "signature", "simhash")},
            "shingles": shingles,
        }
    ).cast(schema)
    bounds = np.array(corpus.bounds, dtype=np.uint64)
    partition = np.searchsorted(bounds, members["second"], side="right") - 1
    order = np.argsort(partition, kind="stable")
    table = table.take(pa.array(order))
    ends = np.searchsorted(partition[order], np.arange(len(bounds)), side="right").tolist()
    parts = cut_table(table, [0, *ends])
    return ShardOutput({"routed.parts": parted_file(parts, table.num_rows)}, {"routed": table.num_rows})


def _shingles(corpus: Corpus, source: Source, places: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """Shingle sets of the group's documents at these ascending places. One file's texts are held at a time."""
    from ray_jobs.dedup import minhash

    first, end = corpus.level.groups[source.group]
    starts = np.array(corpus.level.file_starts()[first : end + 1]) - corpus.level.file_starts()[first]
    bounds = np.searchsorted(places, starts)
    parts = [pa.array([], pa.large_binary())]
    for file, a, b in zip(range(first, end), bounds[:-1], bounds[1:], strict=True):
        if a == b:
            continue
        text = corpus.read(corpus.documents[file], ["text"])["text"].take(pa.array(places[a:b] - starts[file - first]))
        normalised = minhash.normalise(*text_buffers(text))
        sets, offsets = minhash.shingle_sets(*normalised, corpus.spec.shingle_words)
        buffers = [None, pa.py_buffer(offsets * sets.itemsize), pa.py_buffer(np.ascontiguousarray(sets, dtype="<u4"))]
        parts.append(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers))
    return pa.concat_arrays(parts)
