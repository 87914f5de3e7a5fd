"""The semantic node: drops documents that say what an earlier one says, and says of each which that is.

    embeddings   a shard for every input file: each document's embedding, and those that k-means is trained on
    centroids    one shard: the centres of the clusters, from the sample of all files
    clusters     a shard for every input file: each embedding, sent to the range that its nearest centre is in
    duplicates   a shard for every range of clusters: the rule of removal, cluster by cluster; addressed to input files
    documents    a shard for every input file: the documents that are kept, and an audit of all

Nothing holds the corpus: a shard works on one input file, or one range of clusters. Documents are numbered by file and
row, which is the order of (crawl, file, offset). The sample is chosen by a hash of ids, so that how documents are
spread over files does not change it.
"""

import io
import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from configs.base import Resources
from configs.semantic import SemanticSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, add_counters, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.parts import cut_table, parted_file, read_tables, split_table
from ray_jobs.semantic import clusters, embedder

RANGE_DOCUMENTS = 1 << 16
"""In one range of clusters, on average: 100 MB of embeddings of 384 dimensions."""
NUM_SAMPLES = 5
SAMPLE_CHARACTERS = 300
RULE = "semantic"
ROUTED = pa.schema(
    [
        *(("document", pa.int64()), ("cluster", pa.int64()), ("id", pa.string())),
        ("embedding", pa.large_list(pa.float32())),
    ]
)
FOUND = pa.schema([("document", pa.int64()), ("duplicate_of", pa.string()), ("similarity", pa.float64())])


@dataclass(frozen=True)
class Context:
    """What the shards of all stages share; each stage adds its receipts for the next."""

    spec: SemanticSpec
    store: Store
    documents: tuple[OutputFile, ...]
    stages: dict[str, tuple[Receipt, ...]]
    sample_share: float
    """Of documents that are sampled."""

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The number of each input file's first document, and of the document after the last: int64 [files + 1]."""
        return np.cumsum([0, *(file.rows for file in self.documents)])

    @property
    def num_documents(self) -> int:
        return int(self.starts[-1])

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.store, file)), columns=columns)

    def files(self, stage: str, name: str) -> list[OutputFile]:
        """The stage's files of this name, in the order of shards."""
        return [file for receipt in self.stages[stage] for file in receipt.files if file.name == name]

    def array(self, file: OutputFile) -> clusters.Embeddings:
        rows: clusters.Embeddings = np.load(io.BytesIO(read_checked(self.store, file)), allow_pickle=False)
        return rows

    def range_bounds(self, num_clusters: int) -> list[int]:
        """The first cluster of each range, and the cluster after the last."""
        num_ranges = min(num_clusters, -(-self.num_documents // RANGE_DOCUMENTS))
        return [num_clusters * number // num_ranges for number in range(num_ranges + 1)]


def run(spec: SemanticSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    source = inputs["documents"]
    files = tuple(source.files("documents.parquet"))
    num_documents = sum(file.rows for file in files)
    if not num_documents:
        raise UserError(
            f"{source.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    embedder.check_installed()
    context = Context(spec, source.store, files, {}, clusters.MAX_SAMPLE / num_documents)

    embedded = output.fan_out("embeddings", [{"input": i} for i in range(len(files))], embed_file, context)
    # A file that cannot be embedded is quarantined, and left out of all that follows.
    files = tuple(files[receipt.shard] for receipt in embedded)
    context = replace(context, documents=files, stages={"embeddings": tuple(embedded)})
    trained = output.standing("centroids") or output.write("centroids", train(context))
    context = replace(context, stages={**context.stages, "centroids": (trained,)})

    each_file = [{"input": i} for i in range(len(files))]
    routed = output.fan_out("clusters", each_file, route, context)
    context = _complete(context, "clusters", routed, len(files))
    num_ranges = len(context.range_bounds(trained.counters["clusters"])) - 1
    found = output.fan_out("duplicates", [{"range": i} for i in range(num_ranges)], find, context)
    context = _complete(context, "duplicates", found, num_ranges)
    kept = output.fan_out("documents", each_file, keep, context)

    total = add_counters(receipt.counters for receipt in kept)
    return Outcome(
        ("documents",),
        metrics={
            "kept_share": round(total["documents_kept"] / total["documents_in"], 4),
            "clusters": trained.counters["clusters"],
            "largest_cluster": max(receipt.info["largest_cluster"] for receipt in found),
        },
    )


def _complete(context: Context, stage: str, receipts: list[Receipt], num_shards: int) -> Context:
    if len(receipts) < num_shards:
        raise NodeFailed(
            f"{num_shards - len(receipts)} of {num_shards} shards of stage {stage} failed: without them duplicates "
            "would be kept. See attempts/<id>/failures/, mend the cause and run again"
        )
    return replace(context, stages={**context.stages, stage: tuple(receipts)})


def embed_file(shard: dict[str, int], context: Context) -> ShardOutput:
    """The embeddings of one input file, in the order of its documents, and the sample of them."""
    spec = context.spec
    table = context.read(context.documents[shard["input"]], ["id", "text"])
    model = embedder.loaded(embedder.model_folder(spec.model))
    rows = clusters.unit_rows(model.embed(beginnings(table["text"], spec.max_characters)))
    hashes = np.array([sample_hash(id, spec.seed) for id in table["id"].to_pylist()], np.uint64)
    sampled = np.flatnonzero(hashes / 2.0**64 < context.sample_share)
    return ShardOutput(
        {
            "embeddings.npy": _array_file(rows),
            "sample.npy": _array_file(rows[sampled]),
            "sample-hashes.npy": _array_file(hashes[sampled]),
        },
        {"documents": len(rows), "sampled": len(sampled)},
    )


def sample_hash(id: str, seed: int) -> int:
    """64 bits; the documents of the lowest are sampled."""
    return xxhash.xxh3_64_intdigest(id.encode(), seed)


def beginnings(text: pa.ChunkedArray, num_characters: int) -> list[str]:
    """The first characters of each document; bytes that are no UTF-8 are replaced."""
    # A character has four bytes at most; one that is cut is beyond those that are wanted.
    return [
        value[: 4 * num_characters].decode(errors="replace")[:num_characters]
        for chunk in text.cast(pa.large_binary()).chunks
        for value in (scalar.as_py() for scalar in chunk)
    ]


def train(context: Context) -> ShardOutput:
    """Centres of clusters, from the sample of all files in the order of its hashes."""
    spec = context.spec
    hashes = np.concatenate([context.array(file) for file in context.files("embeddings", "sample-hashes.npy")])
    rows = np.concatenate([context.array(file) for file in context.files("embeddings", "sample.npy")])
    rows = rows[np.argsort(hashes, kind="stable")[: clusters.MAX_SAMPLE]]
    number = clusters.clusters_for(context.num_documents, spec.documents_per_cluster, len(rows))
    # The nearest of one centre needs no training, and a sample may be empty where there are few documents.
    centres = clusters.centroids(rows, number, spec.seed) if number > 1 else np.zeros((1, rows.shape[1]), np.float32)
    return ShardOutput({"centroids.npy": _array_file(centres)}, {"clusters": number, "sampled": len(rows)})


def route(shard: dict[str, int], context: Context) -> ShardOutput:
    """One file's documents with their clusters, a part for each range of clusters."""
    number = shard["input"]
    rows = context.array(context.files("embeddings", "embeddings.npy")[number])
    centres = context.array(context.files("centroids", "centroids.npy")[0])
    nearest = clusters.assign(rows, centres) if len(centres) > 1 else np.zeros(len(rows), np.int64)
    table = pa.table(
        [
            pa.array(context.starts[number] + np.arange(len(rows))),
            pa.array(nearest),
            context.read(context.documents[number], ["id"])["id"],
            pa.LargeListArray.from_arrays(np.arange(len(rows) + 1) * rows.shape[1], rows.reshape(-1)),
        ],
        schema=ROUTED,
    )
    bounds = context.range_bounds(len(centres))
    addresses = np.searchsorted(bounds, nearest, side="right") - 1
    return ShardOutput({"clusters.parts": split_table(table, addresses, len(bounds) - 1)}, {"documents": len(rows)})


def find(shard: dict[str, int], context: Context) -> ShardOutput:
    """The duplicates in one range of clusters, a part for each input file."""
    table = read_tables(context.store, context.files("clusters", "clusters.parts"), shard["range"], ROUTED)
    order = np.lexsort((table["document"].to_numpy(), table["cluster"].to_numpy()))
    documents, cluster = table["document"].to_numpy()[order], table["cluster"].to_numpy()[order]
    values = pc.list_flatten(table["embedding"]).to_numpy()
    rows = values.reshape(len(order), -1) if len(order) else np.empty((0, 1), np.float32)
    edges = [0, *(np.flatnonzero(np.diff(cluster)) + 1).tolist(), len(order)]
    found = [np.empty((2, 0), np.int64)]
    similarity = [np.empty(0)]
    for start, end in itertools.pairwise(edges):
        one = clusters.find_duplicates(rows[order[start:end]], context.spec.min_similarity)
        found.append(np.stack([one.document, one.duplicate_of]) + start)
        similarity.append(one.similarity)
    dropped, original = np.concatenate(found, axis=1)
    duplicates = pa.table(
        [
            pa.array(documents[dropped]),
            table["id"].take(pa.array(order[original])),
            pa.array(np.concatenate(similarity)),
        ],
        schema=FOUND,
    ).sort_by("document")
    bounds = np.searchsorted(duplicates["document"].to_numpy(), context.starts)
    sizes = np.diff(edges)
    return ShardOutput(
        {"duplicates.parts": parted_file(cut_table(duplicates, bounds.tolist()), duplicates.num_rows)},
        {"documents": len(order), "clusters": int((sizes > 0).sum()), "duplicates": duplicates.num_rows},
        {"largest_cluster": int(sizes.max())},
    )


def keep(shard: dict[str, int], context: Context) -> ShardOutput:
    """The documents of one input file that are kept, and the audit of all."""
    number = shard["input"]
    table = context.read(context.documents[number])
    found = read_tables(context.store, context.files("duplicates", "duplicates.parts"), number, FOUND)
    found = found.sort_by("document")
    dropped = found["document"].to_numpy() - context.starts[number]
    is_kept = np.ones(table.num_rows, dtype=np.bool_)
    is_kept[dropped] = False
    # Each dropped row's place among those found; null for the kept.
    place = pa.array(np.cumsum(~is_kept) - 1, mask=is_kept)
    kept = table.filter(pa.array(is_kept))
    audit = pa.table(
        {
            "id": table["id"],
            "decision": pa.array(np.where(is_kept, "kept", "dropped"), pa.string()),
            "rule": pa.array([None if one else RULE for one in is_kept.tolist()], pa.string()),
            "duplicate_of": found["duplicate_of"].take(place),
            "similarity": found["similarity"].take(place),
        }
    )
    return ShardOutput(
        {"documents.parquet": parquet_file(kept), "audit.parquet": parquet_file(audit)},
        {
            "documents_in": table.num_rows,
            "documents_kept": kept.num_rows,
            f"dropped.{RULE}": len(dropped),
            "text_bytes_in": pc.sum(pc.binary_length(table["text"])).as_py() or 0,
            "text_bytes_kept": pc.sum(pc.binary_length(kept["text"])).as_py() or 0,
        },
        {"samples": _samples(table, found.slice(0, NUM_SAMPLES), dropped[:NUM_SAMPLES])},
    )


def _samples(table: pa.Table, found: pa.Table, rows: npt.NDArray[np.int64]) -> list[dict[str, object]]:
    """The first documents that are dropped."""
    shown = table.select(["id", "text"]).take(pa.array(rows))
    return [
        {"id": id, "duplicate_of": row["duplicate_of"], "similarity": round(row["similarity"], 4), "text": text}
        for id, row, text in zip(
            shown["id"].to_pylist(), found.to_pylist(), beginnings(shown["text"], SAMPLE_CHARACTERS), strict=True
        )
    ]


def _array_file(rows: npt.NDArray[np.generic]) -> File:
    sink = io.BytesIO()
    np.save(sink, rows, allow_pickle=False)
    return File(sink.getvalue(), len(rows))
