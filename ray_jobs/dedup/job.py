"""The dedup node: drops exact and near-duplicates, and says of each what it duplicates.

    signatures  a shard for every input file: exact hash, band keys and MinHash signature of each document clusters
    one shard: sorts one band at a time, joins what agrees into components, and lists the members of components
                of two and more, in partitions of bounded size that cut no component
    duplicates  a shard for every partition: compares candidates and applies the rule of `verify.py`
    documents   a shard for every input file: the documents that are kept, and an audit of all
    sources     one shard: what each source lost, and an alarm for those that lost nearly all

Only `clusters` sees the whole corpus, in about 8 · (bands + 10) bytes a document and its id; texts and signatures are
held a partition at a time. Documents are ordered by their id, which is the order of (crawl, file, offset).
"""

import logging
from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.dedup import DedupSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.dedup.bands import BandPlan, plan_bands

# A partition holds texts, signatures and shingle sets of its members: about 7 KB each for pages of 4 KB.
PARTITION_MEMBERS = 100_000
NUM_SAMPLES = 5
SAMPLE_CHARACTERS = 300
MAX_ALARMS = 100
"""Sources named in the receipt; sources.parquet holds all."""
log = logging.getLogger("headrace")

AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("decision", pa.string()),
        ("rule", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Context:
    """What the shards of all stages share; each stage fills in the files that the next one reads."""

    spec: DedupSpec
    plan: BandPlan
    store: Store
    documents: tuple[OutputFile, ...]
    signatures: tuple[OutputFile, ...] = ()
    members: OutputFile | None = None
    duplicates: tuple[OutputFile, ...] = ()

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.store, file)), columns=columns)


def run(spec: DedupSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    source = inputs["documents"]
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    files = tuple(source.files("documents.parquet"))
    if not sum(file.rows for file in files):
        raise UserError(
            f"{source.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    context = Context(spec, plan, source.store, files)

    signed = output.fan_out("signatures", [{"input": i} for i in range(len(files))], sign, context)
    # Without its signatures an input cannot be compared: a quarantined one is left out of all that follows.
    context = replace(
        context,
        documents=tuple(files[receipt.shard] for receipt in signed),
        signatures=tuple(file for receipt in signed for file in receipt.files if file.name == "signatures.parquet"),
    )

    clustered = output.standing("clusters") or output.write("clusters", cluster(context, signed))
    context = replace(context, members=clustered.files[0])

    partitions = clustered.info["partitions"]
    verified = output.fan_out("duplicates", [{"first": a, "end": b} for a, b in partitions], verify, context)
    if len(verified) < len(partitions):
        raise NodeFailed(
            f"{len(partitions) - len(verified)} of {len(partitions)} partitions of candidates failed: without their "
            "verdicts duplicates would be kept. See attempts/<id>/failures/, mend the cause and run again"
        )
    context = replace(context, duplicates=tuple(receipt.files[0] for receipt in verified))

    kept = output.fan_out("documents", [{"input": i} for i in range(len(context.documents))], keep, context)
    alarm = output.standing("sources") or output.write("sources", add_up_sources(context, kept))
    for loss in alarm.info["over_loss"]:
        log.warning(
            "dedup dropped %d of %d documents of %s: look at its rows in audit.parquet, raise jaccard if they differ",
            loss["documents_in"] - loss["documents_kept"],
            loss["documents_in"],
            loss["source"] or "pages without a host",
        )
    return Outcome(("documents", "sources"), metrics=headline(plan, spec, clustered, verified, kept, alarm))


def sign(shard: dict[str, int], context: Context) -> ShardOutput:
    """Hashes of one input file's documents."""
    from ray_jobs.dedup import minhash

    spec, plan = context.spec, context.plan
    table = context.read(context.documents[shard["input"]], ["id", "text"])
    text, offsets = minhash.normalise(*minhash.text_buffers(table["text"]))
    exact = minhash.exact_hashes(text, offsets)
    signed = minhash.signatures(text, offsets, spec.shingle_words, spec.num_permutations, spec.seed)
    keys = minhash.band_keys(signed, plan.num_bands, plan.rows)
    columns = {"id": table["id"], "exact_0": exact[:, 0], "exact_1": exact[:, 1]}
    columns |= {f"band_{band:02d}": keys[band] for band in range(plan.num_bands)}
    return ShardOutput(
        {
            "bands.parquet": parquet_file(pa.table(columns)),
            "signatures.parquet": parquet_file(pa.table({"signature": binary_rows(signed)})),
        },
        {"documents": table.num_rows, "text_bytes": int(offsets[-1])},
    )


def cluster(context: Context, signed: list[Receipt]) -> ShardOutput:
    """The members of all components of two and more documents, ordered by component, then document.

    Columns of members.parquet: `input` and `row` say where the document stands; `first` is the place in this very table
    of the first document with the same exact hash.
    """
    from ray_jobs.dedup.candidates import components, first_of_equal

    bands = [file for receipt in signed for file in receipt.files if file.name == "bands.parquet"]
    corpus = read_bands(context, bands)
    first = first_of_equal(corpus.exact)
    component = components(len(first), first, corpus.keys)

    sizes = np.bincount(component, minlength=len(component))
    members = np.flatnonzero(sizes[component] > 1)
    members = members[np.argsort(component[members], kind="stable")]
    place = np.empty(len(component), dtype=np.int64)
    place[members] = np.arange(len(members))
    table = pa.table({"input": corpus.input[members], "row": corpus.row[members], "first": place[first[members]]})
    partitions = cut_partitions(component[members])
    clusters = Counter(size_range(size) for size in sizes[sizes > 1].tolist())
    return ShardOutput(
        {"members.parquet": parquet_file(table)},
        {"documents": len(component), "members": len(members), "clusters": int((sizes > 1).sum())},
        {
            "partitions": partitions,
            "cluster_sizes": {key: clusters[key] for key in sorted(clusters, key=lambda key: int(key.split("-")[0]))},
            "largest_cluster": int(sizes.max()),
        },
    )


@dataclass(frozen=True)
class Corpus:
    """Hashes of all documents, in their order. n documents, b bands."""

    exact: np.ndarray
    """uint64 [n, 2]"""
    keys: np.ndarray
    """uint64 [b, n]"""
    input: np.ndarray
    """int32 [n]: which input file holds the document."""
    row: np.ndarray
    """int32 [n]: where in that file."""


def read_bands(context: Context, files: list[OutputFile]) -> Corpus:
    num_documents = sum(file.rows for file in files)
    num_bands = context.plan.num_bands
    exact = np.empty((num_documents, 2), dtype=np.uint64)
    keys = np.empty((num_bands, num_documents), dtype=np.uint64)
    places = np.empty((2, num_documents), dtype=np.int32)
    ids = []
    start = 0
    for number, file in enumerate(files):
        table = context.read(file)
        rows = slice(start, start + table.num_rows)
        start = rows.stop
        exact[rows, 0], exact[rows, 1] = table["exact_0"].to_numpy(), table["exact_1"].to_numpy()
        for band in range(num_bands):
            keys[band, rows] = table[f"band_{band:02d}"].to_numpy()
        places[0, rows], places[1, rows] = number, np.arange(table.num_rows)
        ids.append(table["id"].cast(pa.large_string()))
    column = pa.concat_arrays([chunk for part in ids for chunk in part.chunks])
    if ascends(column):
        return Corpus(exact, keys, places[0], places[1])
    order = pc.sort_indices(column).to_numpy()
    column = column.take(order)
    if not ascends(column):
        twice = column[:-1].filter(pc.equal(column[:-1], column[1:]))[0]
        raise UserError(f"two documents carry the id {twice}: a crawl's file is listed twice; list it once")
    return Corpus(exact[order], keys[:, order], places[0, order], places[1, order])


def ascends(ids: pa.LargeStringArray) -> bool:
    return len(ids) < 2 or bool(pc.all(pc.less(ids[:-1], ids[1:])).as_py())


def cut_partitions(component: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of members, each of whole components and of PARTITION_MEMBERS or a little more."""
    bounds = np.flatnonzero(np.diff(component, prepend=-1)).tolist()
    partitions, start = [], 0
    for bound in [*bounds, len(component)]:
        if bound - start >= PARTITION_MEMBERS or (bound == len(component) and bound > start):
            partitions.append((start, bound))
            start = bound
    return partitions


def size_range(size: int) -> str:
    """2, 3-4, 5-8, 9-16, …: the bar of a histogram that a cluster of this size falls into."""
    upper = 1 << (size - 1).bit_length()
    return str(size) if size <= 2 else f"{upper // 2 + 1}-{upper}"


def verify(shard: dict[str, int], context: Context) -> ShardOutput:
    """The duplicates among one partition's members, with what they duplicate."""
    from ray_jobs.dedup import minhash
    from ray_jobs.dedup.verify import find_duplicates

    spec = context.spec
    assert context.members is not None
    members = context.read(context.members).slice(shard["first"], shard["end"] - shard["first"])
    inputs, rows = members["input"].to_numpy(), members["row"].to_numpy()
    first = members["first"].to_numpy() - shard["first"]

    # Of documents with equal hashes the first one stands for all.
    leaders = np.flatnonzero(first == np.arange(len(first)))
    documents = gather(context, context.documents, ["id", "text"], inputs, rows)
    signed = signature_rows(
        gather(context, context.signatures, ["signature"], inputs[leaders], rows[leaders])["signature"]
    )
    normalised = minhash.normalise(*minhash.text_buffers(documents["text"].take(leaders)))
    sets = minhash.shingle_sets(*normalised, spec.shingle_words)
    verdicts = find_duplicates(signed, *sets, context.plan, spec.jaccard)

    duplicate_of = np.full(len(first), -1, dtype=np.int64)
    found = verdicts.duplicate_of >= 0
    duplicate_of[leaders[found]] = leaders[verdicts.duplicate_of[found]]
    similarity = np.zeros(len(first), dtype=np.float32)
    similarity[leaders] = verdicts.similarity
    # The others duplicate their leader, or what that one duplicates.
    followers = np.flatnonzero(first != np.arange(len(first)))
    leader_kept = duplicate_of[first[followers]] < 0
    exact = np.zeros(len(first), dtype=bool)
    exact[followers] = leader_kept
    similarity[followers] = np.where(leader_kept, np.float32(1), similarity[first[followers]])
    duplicate_of[followers] = np.where(leader_kept, first[followers], duplicate_of[first[followers]])

    dropped = np.flatnonzero(duplicate_of >= 0)
    dropped = dropped[np.lexsort((rows[dropped], inputs[dropped]))]
    table = pa.table(
        {
            "input": inputs[dropped],
            "row": rows[dropped],
            "rule": np.where(exact[dropped], "exact", "minhash").tolist(),
            "duplicate_of": documents["id"].take(duplicate_of[dropped]),
            "similarity": similarity[dropped],
        }
    ).cast(
        pa.schema(
            [
                ("input", pa.int32()),
                ("row", pa.int32()),
                ("rule", pa.string()),
                ("duplicate_of", pa.string()),
                ("similarity", pa.float32()),
            ]
        )
    )
    return ShardOutput(
        {"duplicates.parquet": parquet_file(table)},
        {"members": len(first), "pairs_compared": verdicts.num_compared, "duplicates": len(dropped)},
    )


def gather(
    context: Context, files: tuple[OutputFile, ...], columns: list[str], inputs: np.ndarray, rows: np.ndarray
) -> pa.Table:
    """The given rows of the given files, in the order given; one file is held at a time."""
    order = np.lexsort((rows, inputs))
    parts = []
    for number in np.unique(inputs).tolist():
        wanted = rows[order][inputs[order] == number]
        parts.append(context.read(files[number], columns).take(wanted))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(parts).combine_chunks().take(back)


def binary_rows(signed: np.ndarray) -> pa.FixedSizeBinaryArray:
    """uint32 [n, p] as n binary values of 4·p bytes, little-endian."""
    data = np.ascontiguousarray(signed, dtype="<u4")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * signed.shape[1]), len(data), [None, pa.py_buffer(data)])


def signature_rows(column: pa.ChunkedArray) -> np.ndarray:
    """The inverse of `binary_rows`: uint32 [n, p]."""
    array = column.combine_chunks()
    width = array.type.byte_width // 4
    values = np.frombuffer(array.buffers()[1], dtype="<u4").astype(np.uint32, copy=False)
    return values.reshape(-1, width)[array.offset : array.offset + len(array)]


def keep(shard: dict[str, int], context: Context) -> ShardOutput:
    """One input file's documents without the duplicates, the audit of all of them, and counts by source."""
    from ray_jobs.dedup.sources import count_sources

    table = context.read(context.documents[shard["input"]])
    parts = [context.read(file).filter(pc.field("input") == shard["input"]) for file in context.duplicates]
    decision = np.full(table.num_rows, "kept", dtype=object)
    rule, duplicate_of, similarity = (np.full(table.num_rows, None, dtype=object) for _ in range(3))
    for part in parts:
        rows = part["row"].to_numpy()
        decision[rows] = "dropped"
        rule[rows] = part["rule"].to_pylist()
        duplicate_of[rows] = part["duplicate_of"].to_pylist()
        similarity[rows] = part["similarity"].to_pylist()
    kept = table.filter(pa.array(decision == "kept"))
    columns = [table["id"].cast(pa.string()), decision, rule, duplicate_of, similarity]
    audit = pa.table(
        [
            pa.array(column, field.type) if isinstance(column, np.ndarray) else column
            for column, field in zip(columns, AUDIT, strict=True)
        ],
        schema=AUDIT,
    )
    samples = [
        {
            "id": table["id"][row].as_py(),
            "rule": rule[row],
            "duplicate_of": duplicate_of[row],
            "similarity": round(similarity[row], 4),
            "text": text_of(table, row)[:SAMPLE_CHARACTERS],
        }
        for row in np.flatnonzero(decision == "dropped")[:NUM_SAMPLES].tolist()
    ]
    return ShardOutput(
        {
            "documents.parquet": parquet_file(kept),
            "audit.parquet": parquet_file(audit),
            "sources.parquet": parquet_file(count_sources(table["url"], decision == "kept")),
        },
        {
            "documents_in": table.num_rows,
            "documents_kept": kept.num_rows,
            "dropped.exact": int((rule == "exact").sum()),
            "dropped.minhash": int((rule == "minhash").sum()),
            "text_bytes_in": text_bytes(table),
            "text_bytes_kept": text_bytes(kept),
        },
        {"dropped_samples": samples},
    )


def add_up_sources(context: Context, kept: list[Receipt]) -> ShardOutput:
    """Every source's documents over all shards, and which of them lost more than the spec allows in silence."""
    from ray_jobs.dedup.sources import over_loss, total

    spec = context.spec
    counted = [context.read(file) for receipt in kept for file in receipt.files if file.name == "sources.parquet"]
    sources = total(counted)
    losses = over_loss(sources, spec.max_source_loss, spec.min_source_documents)
    return ShardOutput(
        {"sources.parquet": parquet_file(sources)},
        {"sources": sources.num_rows, "sources_over_loss": len(losses)},
        {"over_loss": [asdict(loss) for loss in losses[:MAX_ALARMS]]},
    )


def text_of(table: pa.Table, row: int) -> str:
    data: bytes = table["text"][row].cast(pa.large_binary()).as_py()
    return data.decode(errors="replace")


def text_bytes(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table["text"])).as_py() or 0


def headline(
    plan: BandPlan,
    spec: DedupSpec,
    clustered: Receipt,
    verified: list[Receipt],
    kept: list[Receipt],
    alarm: Receipt,
) -> dict[str, float | int | str]:
    entered = sum(receipt.counters["documents_in"] for receipt in kept)
    remain = sum(receipt.counters["documents_kept"] for receipt in kept)
    return {
        "kept_share": round(remain / entered, 4),
        "clusters": clustered.counters["clusters"],
        "largest_cluster": clustered.info["largest_cluster"],
        "pairs_compared": sum(receipt.counters["pairs_compared"] for receipt in verified),
        "bands": f"{plan.num_bands} x {plan.rows}",
        "sources": alarm.counters["sources"],
        "sources_over_loss": alarm.counters["sources_over_loss"],
        "recall_at_threshold": round(plan.recall(spec.jaccard), 4),
    }
