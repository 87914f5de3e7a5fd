"""The documents that a deduplication looks at: this crawl's and those of all crawls before it, under one numbering.

A *level* is one dedup node. Each may name an earlier one as its input `earlier`, which may name another: the chain's
first has level 0. A document's number is level · 2^48 + its place among all documents that entered that level, so that
numbers order documents by (crawl, file, offset).

Input files are dealt with in groups of consecutive ones: a group is a shard that is signed, and later a run of keys.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, read_checked
from ray_jobs.checkpoint.shards import OutputFile, Record
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.dedup.bands import BandPlan
from ray_jobs.files.parts import PAIR, part_bits, read_pairs

LEVEL_BITS = 48
SIGNATURES = "signatures"
"""The first stage; `Corpus.stages` has under its name the files of all groups, those of files signed alone too."""
# Documents of one run: 4 s of signing, and 34 MB of keys. Of large corpora runs are larger, and 4,096 of them, since a
# reader of one range of keys asks every run for its part.
LEAST_IN_GROUP = 1 << 17
MOST_GROUPS = 4096


class Level(Record):
    """What a later crawl must know of this one; the node's output numbering.json."""

    num_parts: int
    """Ranges of keys that its runs are cut into."""
    last_id: str = ""
    """Of its documents and those of all levels before."""
    file_rows: tuple[int, ...]
    """Documents of each input file, in order; a quarantined file's count too, though they stand nowhere."""
    groups: tuple[tuple[int, int], ...]
    """Ranges of input files that are signed together."""
    standing: tuple[int, ...] = ()
    """Groups that were signed; the others are quarantined, of a file each."""
    signed: tuple[tuple[str, int], ...] = ()
    """The stage and the shard that signed each of these."""

    def file_starts(self) -> list[int]:
        """Place of each file's first document, and one past the last."""
        return [0, *itertools.accumulate(self.file_rows)]

    def standing_files(self) -> list[int]:
        return [file for group in self.standing for file in range(*self.groups[group])]

    def group_starts(self) -> list[int]:
        starts = self.file_starts()
        return [starts[first] for first, _ in self.groups] + [starts[-1]]


@dataclass(frozen=True)
class Run:
    """Keys of kept documents, sorted, in `num_parts` equal ranges of all keys."""

    file: OutputFile
    num_parts: int
    first_part: int
    end_part: int
    """Those that the file holds."""


@dataclass(frozen=True)
class EarlierLevel:
    level: Level
    signatures: dict[int, OutputFile]
    """Group -> its signatures.parquet."""
    documents: dict[int, OutputFile]
    """Input file -> its kept documents."""


@dataclass(frozen=True)
class Chain:
    """All levels before this one."""

    levels: tuple[EarlierLevel, ...] = ()
    runs: tuple[Run, ...] = ()
    """Keys of all documents that they kept."""
    num_uncompacted: int = 0
    """Levels whose keys are runs of their own."""

    @property
    def num_entries(self) -> int:
        return sum(run.file.rows for run in self.runs)

    @property
    def last_id(self) -> str:
        return self.levels[-1].level.last_id if self.levels else ""


@dataclass(frozen=True)
class Corpus:
    """What the shards of all stages share."""

    spec: DedupSpec
    plan: BandPlan
    store: Store
    level: Level
    documents: tuple[OutputFile, ...]
    """The input files."""
    chain: Chain = Chain()
    bounds: tuple[int, ...] = ()
    """The first component of each partition, once they are known."""
    stages: dict[str, tuple[OutputFile, ...]] = field(default_factory=dict)
    """What this node's finished stages left, by stage, in the order of shards."""

    @property
    def num_documents(self) -> int:
        """Of this crawl, as they entered."""
        return sum(self.level.file_rows)

    @property
    def first_own(self) -> int:
        """The number of this crawl's first document."""
        return len(self.chain.levels) << LEVEL_BITS

    def files(self, stage: str, name: str) -> list[OutputFile]:
        return [file for file in self.stages.get(stage, ()) if file.name == name]

    def read(self, file: OutputFile, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(read_checked(self.store, file)), columns=columns)

    def group_of_file(self, file: int) -> int:
        return bisect.bisect_right([first for first, _ in self.level.groups], file) - 1

    def file_of_group(self, stage: str, name: str, group: int) -> OutputFile:
        """A file of a stage that has a shard for every group that stands."""
        return self.files(stage, name)[self.level.standing.index(group)]

    def sources(self) -> list["Source"]:
        """All groups whose documents may be compared: earlier levels', then this one's."""
        found = []
        for number, earlier in enumerate(self.chain.levels):
            starts = earlier.level.group_starts()
            for group, file in sorted(earlier.signatures.items()):
                base = number << LEVEL_BITS
                found.append(Source(number, group, file, base + starts[group], base + starts[group + 1]))
        starts = self.level.group_starts()
        for group, file in zip(self.level.standing, self.files(SIGNATURES, "signatures.parquet"), strict=True):
            first, end = (self.first_own + starts[group + step] for step in (0, 1))
            found.append(Source(len(self.chain.levels), group, file, first, end))
        return found


@dataclass(frozen=True)
class Source:
    """One group's signatures."""

    level: int
    group: int
    signatures: OutputFile
    first: int
    """Number of its first document."""
    end: int


def group_files(file_rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of consecutive files, each of so many documents that there are not too many ranges."""
    least = max(LEAST_IN_GROUP, -(-sum(file_rows) // MOST_GROUPS))
    groups, start, size = [], 0, 0
    for file, rows in enumerate(file_rows):
        size += rows
        if size >= least or file == len(file_rows) - 1:
            groups.append((start, file + 1))
            start, size = file + 1, 0
    return groups


def earlier_levels(store: Store, earlier: Checkpoint | None, spec: DedupSpec) -> Chain:
    """The chain that ends in this dedup node.

    Raises:
        UserError: it was computed by another rule, so that its decisions and ours would not be of one corpus.
    """
    levels: list[EarlierLevel] = []
    runs: list[Run] = []
    num_uncompacted, compacted = 0, False
    while earlier is not None:
        _check_rule(earlier, spec)
        level = read_level(earlier)
        by_shard = {(file.stage, file.shard): file for file in earlier.files("signatures.parquet")}
        signatures = {group: by_shard[signed] for group, signed in zip(level.standing, level.signed, strict=True)}
        # A quarantined shard of documents leaves no file, so shards, not places in the list, name the input.
        inputs = level.standing_files()
        documents = {inputs[file.shard]: file for file in earlier.files("documents.parquet")}
        levels.append(EarlierLevel(level, signatures, documents))
        if not compacted:
            merged = earlier.files("compacted.run")
            compacted = bool(merged)
            num_uncompacted += not compacted
            runs += [Run(file, len(merged), file.shard, file.shard + 1) for file in merged] or [
                Run(file, level.num_parts, 0, level.num_parts) for file in earlier.files("index.run")
            ]
        upstream = earlier.manifest.inputs.get("earlier")
        earlier = Checkpoint.open(store, upstream.node, upstream.key) if upstream else None
    return Chain(tuple(levels[::-1]), tuple(runs), num_uncompacted)


def read_level(checkpoint: Checkpoint) -> Level:
    return Level.model_validate_json(checkpoint.read(checkpoint.file("numbering.json")))


# Fields that say what is reported, not which documents are dropped.
_FREE = {"max_source_loss", "min_source_documents", "max_quarantined_share"}


def _check_rule(earlier: Checkpoint, spec: DedupSpec) -> None:
    if earlier.node != DedupSpec.node or earlier.manifest.payload.get("version") != DedupSpec.version:
        raise UserError(
            f"{earlier.node} {earlier.key[:16]} is no dedup of version {DedupSpec.version}, so its hashes are not "
            "ours: name a dedup node in the slot earlier, computed anew by this version"
        )
    before: dict[str, Any] = earlier.manifest.payload["spec"]
    now = spec.model_dump(mode="json")
    for name in sorted(now.keys() - _FREE):
        if before.get(name) != now[name]:
            raise UserError(
                f"{earlier.node} {earlier.key[:16]}, which this crawl is to be compared with, has {name} "
                f"{before.get(name)!r}, here it is {now[name]!r}: one corpus needs one rule; set it alike, or build "
                "the earlier crawls anew with it"
            )


def parts_for(num_entries: int, entries_a_part: int) -> int:
    """A power of two, so that the ranges of any two runs nest."""
    return 1 << max(0, (-(-num_entries // entries_a_part) - 1).bit_length())


def overlapping(runs: Sequence[Run], part: int, num_parts: int) -> Iterator[tuple[Run, int, int]]:
    """Runs that hold keys of part `part` of `num_parts`, and which of the file's parts (counted in the file)."""
    for run in runs:
        # Both are powers of two: one range holds the other.
        if run.num_parts >= num_parts:
            scale = run.num_parts // num_parts
            first, end = part * scale, (part + 1) * scale
        else:
            first = part // (num_parts // run.num_parts)
            end = first + 1
        first, end = max(first, run.first_part), min(end, run.end_part)
        if first < end:
            yield run, first - run.first_part, end - run.first_part


def read_runs(store: Store, runs: Sequence[Run], part: int, num_parts: int) -> npt.NDArray[np.void]:
    """All (key, document) of this range of keys, in the order of documents."""
    bits = part_bits(num_parts)

    def inside(one: tuple[Run, int, int]) -> npt.NDArray[np.void]:
        run, first, end = one
        rows = read_pairs(store, run.file, first, end)
        # A run of fewer parts gives more than is asked for.
        return rows[rows["first"] >> np.uint64(64 - bits) == part] if run.num_parts < num_parts else rows

    found = store.concurrently(inside, list(overlapping(runs, part, num_parts)))
    together = np.concatenate([np.empty(0, dtype=PAIR), *found])
    return together[np.argsort(together["second"], kind="stable")]
