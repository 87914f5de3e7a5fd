"""The repeats node: cuts out text that stands in earlier documents, and says of each document what it lost.

    hashes      a shard for every input file: hashes of its lines, paragraphs and windows of words, by ranges
    shared      a shard for every range: which hashes several files have; asks the first file for its text
    quotes      a shard for every input file: the text that was asked for, addressed to the files that repeat it
    documents   a shard for every input file: compares, cuts, drops what is left too short, and audits

A stage's shards hand over to the next by files in parts. Nothing holds the corpus: a shard works on one input file or
one range of hashes. Documents are ordered by file and row, which is the order of (crawl, file, offset); places in a
file are numbers of words.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.base import Resources
from configs.repeats import RepeatsSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import File, Outcome, OutputFile, Receipt, ShardOutput, parquet_file
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.parts import read_table_each, read_tables, split_table

if TYPE_CHECKING:
    from ray_jobs.repeats.words import Words

# Stored bytes of input for one range of hashes. Text compresses to a third and a word takes 6 bytes: 16 million
# windows, which take 1 GB while they are sorted.
RANGE_BYTES = 32 << 20
NUM_SAMPLES = 5
SAMPLE_CHARACTERS = 300
UNITS_FILE, WINDOWS_FILE = "units.parts", "windows.parts"
RULES = ("lines", "paragraphs", "substrings")
LEFT_TOO_LITTLE = "repeats_left_too_little"


@dataclass(frozen=True)
class Context:
    """What the shards of all stages share; each stage adds its receipts for the next."""

    spec: RepeatsSpec
    store: Store
    documents: tuple[OutputFile, ...]
    num_ranges: int
    stages: dict[str, tuple[Receipt, ...]]

    @property
    def limits(self) -> dict[str, int]:
        """Kind of unit -> documents that may share one."""
        limits = {"lines": self.spec.max_line_documents, "paragraphs": self.spec.max_paragraph_documents}
        return {kind: limit for kind, limit in limits.items() if limit is not None}

    @property
    def unit_kinds(self) -> tuple[str, ...]:
        return tuple(self.limits)

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.store, file)), columns=columns)

    def file(self, stage: str, shard: int, name: str) -> OutputFile:
        return next(file for file in self.stages[stage][shard].files if file.name == name)

    def files(self, stage: str, name: str) -> list[OutputFile]:
        return [self.file(stage, shard, name) for shard in range(len(self.stages[stage]))]

    def received(self, stage: str, name: str, part: int) -> list[tuple[int, pa.Table]]:
        """What each of the stage's shards has for this part, where it has anything."""
        tables = read_table_each(self.store, self.files(stage, name), part)
        return [(shard, table) for shard, table in enumerate(tables) if table is not None]

    def gathered(self, stage: str, name: str, input: int, schema: pa.Schema) -> pa.Table:
        """What the stage has for this input file, in one table."""
        return read_tables(self.store, self.files(stage, name), input, schema)

    def by_range(self, table: pa.Table) -> File:
        """The table's rows, addressed to the ranges of their hashes."""
        addresses = table["hash"].to_numpy() >> np.uint64(32)
        addresses *= np.uint64(self.num_ranges)
        addresses >>= np.uint64(32)
        return split_table(table, addresses.astype(np.int32), self.num_ranges)


def run(spec: RepeatsSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    source = inputs["documents"]
    files = tuple(source.files("documents.parquet"))
    if not sum(file.rows for file in files):
        raise UserError(
            f"{source.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    num_ranges = -(-sum(file.bytes for file in files) // RANGE_BYTES)
    context = Context(spec, source.store, files, num_ranges, {})

    hashed = output.fan_out("hashes", [{"input": i} for i in range(len(files))], hash_file, context)
    # Without its hashes an input cannot be compared: a quarantined one is left out of all that follows.
    files = tuple(files[receipt.shard] for receipt in hashed)
    context = replace(context, documents=files, stages={"hashes": tuple(hashed)})
    each_file = [{"input": i} for i in range(len(files))]

    shared = output.fan_out("shared", [{"range": i} for i in range(num_ranges)], share, context)
    context = _complete(context, "shared", shared, num_ranges)
    quoted = output.fan_out("quotes", each_file, quote, context)
    context = _complete(context, "quotes", quoted, len(files))
    kept = output.fan_out("documents", each_file, cut_file, context)

    total = Counter[str]()
    for receipt in kept:
        total.update(receipt.counters)
    return Outcome(
        ("documents",),
        metrics={
            "kept_share": round(total["documents_kept"] / total["documents_in"], 4),
            "changed_share": round(total["documents_changed"] / total["documents_in"], 4),
            "words_kept_share": round(total["words_kept"] / max(1, total["words_in"]), 4),
        },
    )


def _complete(context: Context, stage: str, receipts: list[Receipt], num_shards: int) -> Context:
    if len(receipts) < num_shards:
        raise NodeFailed(
            f"{num_shards - len(receipts)} of {num_shards} shards of stage {stage} failed: without them repeated text "
            "would be kept. See attempts/<id>/failures/, mend the cause and run again"
        )
    return replace(context, stages={**context.stages, stage: tuple(receipts)})


def hash_file(shard: dict[str, int], context: Context) -> ShardOutput:
    """The distinct hashes of one input file, by ranges, and the windows that it repeats itself."""
    from ray_jobs.repeats import units, words
    from ray_jobs.repeats.sharing import distinct_units, own_units

    spec = context.spec
    text = context.read(context.documents[shard["input"]], ["text"])["text"]
    split = words.split(*text_buffers(text))
    own = own_units(units.find_units(text, context.unit_kinds, spec.min_characters), split)
    counters = {"documents": len(text), "words": len(split)}
    distinct, within = _file_windows(split, spec)
    # What is put in order from here on would stand in memory beside the text and its words.
    del text, split
    files = {UNITS_FILE: context.by_range(distinct_units(own)), "units.parquet": parquet_file(own)}
    if spec.min_repeated_words is not None:
        files[WINDOWS_FILE] = context.by_range(distinct)
        files["within.parquet"] = parquet_file(within)
        counters |= {"windows": distinct.num_rows, "windows_within": within.num_rows}
    return ShardOutput(files, counters)


def _file_windows(split: "Words", spec: RepeatsSpec) -> tuple[pa.Table, pa.Table]:
    """WINDOWS of one file, each hash once, and the windows (word, first) that stand at an earlier place in it."""
    from ray_jobs.repeats import suffix_array, windows
    from ray_jobs.repeats.sharing import WINDOWS

    if spec.min_repeated_words is None:
        return WINDOWS.empty_table(), pa.table({})
    hashes = windows.window_hashes(split, spec.min_repeated_words)
    if spec.within_files == "suffix-array":
        first = suffix_array.first_places(split, spec.min_repeated_words)
    else:
        first = windows.first_places(split, hashes, spec.min_repeated_words)
    is_first = first == np.arange(len(first))
    distinct, again = np.flatnonzero(is_first), np.flatnonzero((first >= 0) & ~is_first)
    return (
        pa.table([hashes[distinct], distinct], schema=WINDOWS),
        pa.table({"word": again, "first": first[again]}),
    )


def share(shard: dict[str, int], context: Context) -> ShardOutput:
    """The hashes of one range that several documents have, addressed to the file that has each first."""
    from ray_jobs.repeats.sharing import shared_units, shared_windows

    num_files = len(context.documents)
    units = shared_units(context.received("hashes", UNITS_FILE, shard["range"]), context.limits)
    files = {UNITS_FILE: split_table(units, units["input"].to_numpy(), num_files)}
    counters = {"units": len(np.unique(units["hash"].to_numpy()))}
    if context.spec.min_repeated_words is not None:
        windows = shared_windows(context.received("hashes", WINDOWS_FILE, shard["range"]))
        files[WINDOWS_FILE] = split_table(windows, windows["input"].to_numpy(), num_files)
        counters["windows_across"] = windows.num_rows
    return ShardOutput(files, counters)


def quote(shard: dict[str, int], context: Context) -> ShardOutput:
    """What other files repeat of one input file: its text, and the ids of its documents, addressed to them."""
    from ray_jobs.repeats import words
    from ray_jobs.repeats.sharing import SHARED_UNITS, SHARED_WINDOWS, runs

    spec, num_files = context.spec, len(context.documents)
    units = context.gathered("shared", UNITS_FILE, shard["input"], SHARED_UNITS)
    windows = SHARED_WINDOWS.empty_table()
    if spec.min_repeated_words is not None:
        windows = context.gathered("shared", WINDOWS_FILE, shard["input"], SHARED_WINDOWS)
    # A file that nobody repeats is not read.
    wanted = units.num_rows + windows.num_rows > 0
    table = context.read(context.documents[shard["input"]], ["id", "text"]) if wanted else None
    ids = table["id"].to_numpy() if table else np.empty(0, object)
    split = words.split(*text_buffers(table["text"] if table else pa.array([], pa.large_string())))

    units = units.append_column("source_id", pa.array(ids[split.document_of(units["word"].to_numpy())], pa.string()))
    files = {UNITS_FILE: split_table(units, units["target"].to_numpy(), num_files)}
    counters = {"units": units.num_rows}
    if spec.min_repeated_words is not None:
        found = runs(windows)
        starts = found["word"].to_numpy()
        ends = starts + found["windows"].to_numpy() + spec.min_repeated_words - 1
        texts = [split.text(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        found = found.append_column("text", pa.array(texts, pa.large_binary()))
        found = found.append_column("source_id", pa.array(ids[split.document_of(starts)], pa.string()))
        files[WINDOWS_FILE] = split_table(found, found["target"].to_numpy(), num_files)
        counters |= {"quotes": len(texts), "quoted_bytes": sum(map(len, texts))}
    return ShardOutput(files, counters)


def cut_file(shard: dict[str, int], context: Context) -> ShardOutput:
    """The documents of one input file without what they repeat, and the audit of all."""
    from ray_jobs.repeats import words
    from ray_jobs.repeats.cut import cut
    from ray_jobs.repeats.sharing import QUOTED_RUNS, QUOTED_UNITS
    from ray_jobs.repeats.verdict import Marks, first_sources, mark_substrings, mark_units, per_document

    spec, own = context.spec, shard["input"]
    table = context.read(context.documents[own])
    ids = table["id"].to_pylist()
    data, offsets = text_buffers(table["text"])
    split = words.split(data, offsets)
    marks: dict[str, Marks] = {}
    shared = context.gathered("quotes", UNITS_FILE, own, QUOTED_UNITS)
    units = context.read(context.file("hashes", own, "units.parquet"))
    for kind in context.unit_kinds:
        marks[kind] = mark_units(kind, units, split, shared)
    if spec.min_repeated_words is not None:
        within = context.read(context.file("hashes", own, "within.parquet"))
        quotes = context.gathered("quotes", WINDOWS_FILE, own, QUOTED_RUNS)
        marks["substrings"] = mark_substrings(split, spec.min_repeated_words, within, quotes, ids)

    # A word that several rules take is counted for the first of them.
    removed = np.zeros(len(split), dtype=bool)
    counters = {}
    for rule, mark in marks.items():
        counters[f"words_removed.{rule}"] = int(np.count_nonzero(mark.words & ~removed))
        counters[f"{rule}_removed"] = int(mark.pieces.sum())
        removed |= mark.words
    num_words, num_removed = np.diff(split.offsets), per_document(removed, split.offsets)
    is_kept = (num_removed == 0) | (num_words - num_removed >= spec.min_words)
    column = table.schema.get_field_index("text")
    kept = table.set_column(column, pa.field("text", pa.large_string()), cut(split, offsets, removed))
    kept = kept.filter(pa.array(is_kept))
    sources = first_sources(marks, len(ids))
    audit = pa.table(
        {
            "id": table["id"],
            "decision": pa.array(np.where(is_kept, "kept", "dropped"), pa.string()),
            "rule": pa.array([None if kept else LEFT_TOO_LITTLE for kept in is_kept.tolist()], pa.string()),
            "words": num_words,
            "words_removed": num_removed,
            **{f"{rule}_removed": marks[rule].pieces if rule in marks else num_removed * 0 for rule in RULES},
            "first_source": pa.array(sources, pa.string()),
        }
    )
    words_kept = int((num_words - num_removed)[is_kept].sum())
    return ShardOutput(
        {"documents.parquet": parquet_file(kept), "audit.parquet": parquet_file(audit)},
        {
            "documents_in": table.num_rows,
            "documents_kept": kept.num_rows,
            "documents_changed": int(np.count_nonzero(is_kept & (num_removed > 0))),
            f"dropped.{LEFT_TOO_LITTLE}": int(np.count_nonzero(~is_kept)),
            "text_bytes_in": pc.sum(pc.binary_length(table["text"])).as_py() or 0,
            "text_bytes_kept": pc.sum(pc.binary_length(kept["text"])).as_py() or 0,
            "words_in": len(split),
            "words_kept": words_kept,
            **counters,
            f"words_removed.{LEFT_TOO_LITTLE}": len(split) - int(np.count_nonzero(removed)) - words_kept,
        },
        {"samples": _samples(ids, sources, split, removed)},
    )


def _samples(ids: list[str], sources: list[str | None], split: Any, removed: npt.NDArray[np.bool_]) -> list[Any]:
    """What was cut first out of the first documents that lost anything."""
    shown = []
    for document in [document for document, source in enumerate(sources) if source is not None][:NUM_SAMPLES]:
        own = removed[split.offsets[document] : split.offsets[document + 1]]
        first = int(np.argmax(own))
        length = int(np.argmin(own[first:])) or len(own) - first
        start = int(split.offsets[document]) + first
        text = split.text(start, start + length).decode(errors="replace")[:SAMPLE_CHARACTERS]
        shown.append({"id": ids[document], "source": sources[document], "text": text})
    return shown
