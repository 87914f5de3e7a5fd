"""The finished nodes that a report is about, in the order of their graph, and small reads of what they left."""

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ray_jobs.checkpoint.checkpoint import Checkpoint, DamagedOutput
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest
from ray_jobs.checkpoint.shards import OutputFile, Receipt

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

# A report shows a few documents: of a corpus of any size it reads at most this many files of a kind, evenly spaced, and
# at most so many bytes of them.
MAX_FILES = 16
MAX_BYTES = 48 << 20


@dataclass(frozen=True)
class Node:
    """A finished node under the name that the recipe gives it."""

    name: str
    checkpoint: Checkpoint
    inputs: Mapping[str, str]
    """Slot -> name of the node that fills it, where the report sees that node."""

    @property
    def kind(self) -> str:
        return self.checkpoint.node

    @property
    def manifest(self) -> Manifest:
        return self.checkpoint.manifest

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.manifest.payload["spec"]
        return spec

    @property
    def output_bytes(self) -> int:
        return sum(file.bytes for file in self.manifest.outputs)


class Nodes:
    """All nodes of a run but the report, each after its inputs."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint]):
        names: dict[str, str] = {}
        for name in sorted(checkpoints):
            names.setdefault(checkpoints[name].key, name)
        inputs = {
            name: {
                slot: names[upstream.key]
                for slot, upstream in sorted(checkpoint.manifest.inputs.items())
                if upstream.key in names
            }
            for name, checkpoint in sorted(checkpoints.items())
        }
        order = graphlib.TopologicalSorter({name: sorted(set(read.values())) for name, read in inputs.items()})
        self._nodes = {name: Node(name, checkpoints[name], inputs[name]) for name in order.static_order()}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self if node.kind == kind]

    def studied(self) -> set[str]:
        """Names of the runs of scaling studies, which are told of together."""
        return {upstream for node in self.of_kind("scaling") for upstream in node.inputs.values()}

    def groups(self) -> dict[str, list[Node]]:
        """All nodes by their names, but the runs of studies by kind: `pretrain × 12`."""
        studied = self.studied()
        kinds = [self[name].kind for name in studied]
        grouped: dict[str, list[Node]] = {}
        for node in self:
            name = f"{node.kind} × {kinds.count(node.kind)}" if node.name in studied else node.name
            grouped.setdefault(name, []).append(node)
        return grouped

    def funnels(self) -> list[Node]:
        """The nodes that keep or drop documents."""
        return [node for node in self if "documents_in" in node.manifest.counters]

    def input_with(self, node: Node, file_name: str) -> Node | None:
        """The first input of `node` that has outputs called `file_name`."""
        inputs = [self[upstream] for upstream in node.inputs.values()]
        return next((upstream for upstream in inputs if upstream.checkpoint.files(file_name)), None)

    def ancestors(self, node: Node) -> list[Node]:
        """What `node` is computed from, in order."""
        found = set(node.inputs.values())
        for upstream in node.inputs.values():
            found |= {other.name for other in self.ancestors(self[upstream])}
        return [other for other in self if other.name in found]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced: the same ones each time."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def few_files(node: Node, name: str) -> list[OutputFile]:
    """Those of the node's outputs called `name` that a report reads."""
    chosen, num_bytes = [], 0
    for file in spread(node.checkpoint.files(name), MAX_FILES):
        num_bytes += file.bytes
        if num_bytes > MAX_BYTES:
            break
        chosen.append(file)
    return chosen


def read_table(node: Node, file: OutputFile, columns: Sequence[str] | None = None) -> "pa.Table":
    """The given columns of a Parquet output, where it has them; its checksum is verified."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(pa.BufferReader(node.checkpoint.read(file)))
    wanted = None if columns is None else [name for name in columns if name in source.schema_arrow.names]
    return source.read(columns=wanted)


def read_rows(node: Node, name: str, columns: Sequence[str]) -> "pa.Table":
    """Rows of the outputs called `name` that a report reads, in order; a column that a file lacks is left out."""
    import pyarrow as pa

    tables = [read_table(node, file, columns) for file in few_files(node, name)]
    return pa.concat_tables(tables) if tables else pa.table({})


def rows_at(table: "pa.Table", places: Sequence[int]) -> list[dict[str, Any]]:
    """The rows at the given places, in that order."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = table.take(pa.array(places, pa.int64())).to_pylist()
    return rows


def read_receipts(node: Node, stage: str) -> list[Receipt]:
    """A few of a stage's receipts, whose `info` holds what the stage found worth showing."""
    store, path = node.checkpoint.store, NodePath(node.kind, node.checkpoint.key)
    paths = [entry.path for entry in store.list(path.receipts(stage))]
    found = store.get_many(spread(paths, MAX_FILES))
    return [Receipt.model_validate_json(data) for data in found if data is not None]


def texts_of(node: Node | None, ids: set[str]) -> dict[str, tuple[str, str]]:
    """id -> (url, text) of those of the documents that stand in the files which a report reads."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, tuple[str, str]] = {}
    if node is None or not ids:
        return found
    wanted = pa.array(sorted(ids), pa.string())
    for file in few_files(node, "documents.parquet"):
        table = read_table(node, file, ["id", "url", "text"])
        if not {"id", "url", "text"} <= set(table.column_names):
            continue
        found |= _texts_in(table.filter(pc.is_in(table["id"].cast(pa.string()), wanted)))
    return found


def kept_texts(node: Node, ids: set[str]) -> tuple[dict[str, tuple[str, str]], str | None]:
    """id -> (url, text) of documents that a dedup node kept, or one of the earlier crawls that it was compared with.

    Returns:
        These, and the first of the earlier nodes whose documents are not in the store any more: None where all are, or
        where those after it have all that was asked for.
    """
    from ray_jobs.files.ranges import find_rows

    found: dict[str, tuple[str, str]] = {}
    checkpoint = node.checkpoint
    while ids - found.keys():
        files = checkpoint.files("documents.parquet")
        try:
            rows = find_rows(checkpoint.store, files, ["id", "url", "text"], "id", sorted(ids - found.keys()))
        except DamagedOutput:
            return found, f"{checkpoint.node} {checkpoint.key[:16]}"
        found |= _texts_in(rows)
        earlier = checkpoint.manifest.inputs.get("earlier")
        if earlier is None:
            break
        try:
            checkpoint = Checkpoint.open(checkpoint.store, earlier.node, earlier.key)
        except FileNotFoundError:
            return found, f"{earlier.node} {earlier.key[:16]}" if ids - found.keys() else None
    return found, None


def _texts_in(table: "pa.Table") -> dict[str, tuple[str, str]]:
    import pyarrow as pa

    text = table["text"].cast(pa.large_binary())  # not every page's text is sound UTF-8
    return {
        table["id"][row].as_py(): (table["url"][row].as_py() or "", text[row].as_py().decode(errors="replace"))
        for row in range(table.num_rows)
    }
