"""What became of one page: its row in the audit of every node that judged it, and the tokens that it became."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.checkpoint.checkpoint import Checkpoint
from tasks.plan import Plan

ARCHIVE = "crawl.warc.gz"
AUDIT = "audit.parquet"
TOKEN_INDEX = "index.parquet"
ORIGINALS = ("duplicate_of", "first_source")
"""Columns that hold the id of an earlier document."""


@dataclass(frozen=True)
class Step:
    """One node's verdict."""

    node: str
    decision: str
    """kept or dropped."""
    facts: dict[str, Any]
    """The audit's other columns that say something: scores, rule, value, threshold, source, duplicate_of. Of a tokens
    node: place (node/part/shard@position, which `headrace why` takes), source, num_tokens with end-of-text, num_bytes;
    a document of a source of weight 2 has two such steps."""


@dataclass
class TracedDocument:
    id: str
    """crawl/file/offset: the record's place in the crawl."""
    url: str
    archive: str
    """URL of the WARC file that holds it."""
    offset: int
    """Byte of that file, as it is stored, at which the record begins."""
    steps: list[Step] = field(default_factory=list)


def trace(plan: Plan, wanted: str) -> list[TracedDocument]:
    """Every document with this URL or this id, in the order of the crawl, with what each finished node did to it.

    Raises:
        ValueError: no finished node has seen such a page.
    """
    audits = [
        (name, Checkpoint(plan.store, node.manifest))
        for name, node in plan.nodes.items()
        if node.manifest is not None and any(file.name == AUDIT for file in node.manifest.outputs)
    ]
    filters = [checkpoint for _, checkpoint in audits if checkpoint.node == "filter"]  # whose audits alone have URLs
    if not filters:
        raise ValueError(
            f"filter of {plan.recipe.name} has not finished in {plan.store.url}: "
            f"`headrace run {plan.recipe.name} --to filter` first"
        )
    column = "url" if "://" in wanted else "id"
    found = {checkpoint.key: list(_rows(checkpoint, column, [wanted])) for checkpoint in filters}
    rows = [row for one in found.values() for row in one]
    archives = archives_of(plan)
    documents = {row["id"]: _described(row["id"], row["url"], archives) for row in rows}
    if not documents:
        raise ValueError(
            f"filter {', '.join(checkpoint.key[:16] for checkpoint in filters)} saw no page {wanted!r}: give its "
            "URL as the crawl has it, or its id "
            "(crawl/file/offset) as an audit names it"
        )
    for name, checkpoint in audits:
        for row in found[checkpoint.key] if checkpoint.key in found else _rows(checkpoint, "id", documents):
            facts = {column: value for column, value in row.items() if value is not None}
            document = documents[facts.pop("id")]
            facts.pop("url", None)
            document.steps.append(Step(name, facts.pop("decision"), facts))
    _name_originals(filters, documents.values())
    for name, node in plan.nodes.items():
        if node.kind == "tokens" and node.manifest is not None:
            _add_tokens(name, Checkpoint(plan.store, node.manifest), documents)
    return [documents[id] for id in sorted(documents)]


def _add_tokens(name: str, checkpoint: Checkpoint, documents: dict[str, TracedDocument]) -> None:
    """The span of tokens that each document became."""
    for part in ("train", "heldout"):
        for row in _rows(checkpoint, "id", documents, TOKEN_INDEX, part):
            place = f"{name}/{part}/{row['shard']:05d}@{row['start']}"
            facts = {
                "place": place,
                "source": row["source"],
                "num_tokens": row["length"],
                "num_bytes": row["bytes"],
            }
            documents[row["id"]].steps.append(Step(name, "kept", facts))


def _rows(
    checkpoint: Checkpoint, column: str, wanted: Iterable[str], name: str = AUDIT, stage: str | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of the files of that name whose column has one of the values. The files are read one at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = set(wanted)
    for file in checkpoint.files(name, stage):
        data = pa.BufferReader(checkpoint.read(file))
        yield from pq.read_table(data, filters=[(column, "in", values)]).to_pylist()


def _name_originals(filters: Iterable[Checkpoint], documents: Iterable[TracedDocument]) -> None:
    """Adds the URLs of what a document duplicates or repeats, which audits name by their ids."""
    named = [
        (step.facts, column)
        for document in documents
        for step in document.steps
        for column in ORIGINALS
        if column in step.facts
    ]
    if not named:
        return
    wanted = {facts[column] for facts, column in named}
    urls = {row["id"]: row["url"] for checkpoint in filters for row in _rows(checkpoint, "id", wanted)}
    for facts, column in named:
        if facts[column] in urls:  # the original may be of a crawl that another recipe filtered
            facts[f"{column}_url"] = urls[facts[column]]


def _described(id: str, url: str, archives: dict[str, str]) -> TracedDocument:
    file, _, offset = id.rpartition("/")
    archive = archives.get(file, f"archive {file} of the snapshot, which is gone from the store")
    return TracedDocument(id, url, archive, int(offset))


def archives_of(plan: Plan) -> dict[str, str]:
    """URL of each WARC file by "crawl/file", as ids begin: pinned, or in the store, where a snapshot made them."""
    archives: dict[str, str] = {}
    for node in plan.nodes.values():
        if node.kind != "snapshot":
            continue
        spec = node.payload["spec"]
        if pinned := spec.get("content", {}).get("files"):
            archives |= {f"{spec['crawl']}/{number:05d}": str(file["url"]) for number, file in enumerate(pinned)}
        elif node.manifest is not None:
            made = Checkpoint(plan.store, node.manifest)
            archives |= {f"{spec['crawl']}/{file.shard:05d}": made.url(file) for file in made.files(ARCHIVE)}
    return archives
