"""The audits of a recipe's nodes as tables: where their Parquet files lie, and SQL over them by DuckDB.

filter, dedup, scrub, …   one view a node: a row for every document that entered it
tokens                    where each document stands in the token shards
archives                  crawl/file, as ids begin -> URL of the WARC file
audit                     all nodes' rows, with the node's name and its step in the recipe
documents                 one row a document: its archive and offset, and the last decision on it
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import OutputFile
from tasks.plan import Plan
from tasks.trace import AUDIT, TOKEN_INDEX, archives_of

if TYPE_CHECKING:
    import pyarrow as pa

# Of an audit's columns, those that the view `documents` shows: of the first row, and of the last.
CARRIED = ("url", "language")
LAST = ("node", "decision", "rule", "value", "threshold", "duplicate_of")

Locate = Callable[[Checkpoint, OutputFile], str | Path]


@dataclass(frozen=True)
class AuditTable:
    """The audit files of one node, or the index files of one part of its tokens."""

    name: str
    """The node's name in the recipe."""
    checkpoint: Checkpoint
    files: tuple[OutputFile, ...]
    part: str | None = None
    """train or heldout, of a tokens node."""

    @property
    def num_rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def urls(self) -> list[str]:
        return [self.checkpoint.url(file) for file in self.files]

    def schema(self) -> "pa.Schema":
        """Of the first file, as all have the same."""
        import pyarrow.parquet as pq

        return pq.read_schema(self.checkpoint.local_path(self.files[0]))


@dataclass(frozen=True)
class Answer:
    columns: list[str]
    rows: list[tuple[Any, ...]]


def audit_tables(plan: Plan, only: str | None = None) -> list[AuditTable]:
    """Those of the finished nodes, in the recipe's order.

    Raises:
        ValueError: there is none, or `only` is no node of the recipe.
    """
    if only is not None and only not in plan.nodes:
        raise ValueError(f"recipe {plan.recipe.name} has no node {only!r}: it has {', '.join(plan.nodes)}")
    tables = [table for name in plan.nodes if only in {None, name} for table in _tables_of(plan, name)]
    if not tables:
        raise ValueError(
            f"{only or 'no node'} of {plan.recipe.name} has {'no ' if only else 'an '}audit in {plan.store.url}: "
            f"`headrace run {plan.recipe.name} --to {only or 'scrub'}` first; filter to tokens leave one"
        )
    return tables


def _tables_of(plan: Plan, name: str) -> Iterator[AuditTable]:
    planned = plan.nodes[name]
    if planned.manifest is None:
        return
    checkpoint = Checkpoint(plan.store, planned.manifest)
    if files := tuple(checkpoint.files(AUDIT)):
        yield AuditTable(name, checkpoint, files)
    if planned.kind == "tokens":
        for part in ("train", "heldout"):
            if files := tuple(checkpoint.files(TOKEN_INDEX, part)):
                yield AuditTable(name, checkpoint, files, part)


def views(plan: Plan, tables: list[AuditTable], locate: Locate) -> list[str]:
    """The CREATE VIEW statements.

    Args:
        locate: where DuckDB shall find a file: its URL, or a path on this machine.
    """
    columns = {table.name: table.schema().names for table in tables if table.part is None}
    statements = [_view(name, _node_query(name, tables, locate)) for name in dict.fromkeys(t.name for t in tables)]
    statements.append(_view("archives", _archives_query(plan)))
    if columns:
        steps = enumerate(columns)
        rows = [f"SELECT {_text(name)} AS node, {step} AS step, * FROM {_name(name)}" for step, name in steps]
        statements.append(_view("audit", " UNION ALL BY NAME ".join(rows)))
        statements.append(_view("documents", _documents_query({"node"}.union(*columns.values()))))
    return statements


def _archives_query(plan: Plan) -> str:
    archives = ", ".join(f"({_text(file)}, {_text(url)})" for file, url in sorted(archives_of(plan).items()))
    return f"SELECT file, url FROM (VALUES {archives or '(NULL, NULL)'}) AS archives(file, url)"


def _documents_query(known: set[str]) -> str:
    """The row of each document at the last step that judged it, with what only the first step's row says.

    The row is packed into a struct, for max_by of a single column passes over rows where that is NULL.
    """
    carried = [name for name in CARRIED if name in known]
    last = [name for name in LAST if name in known]
    packed = ", ".join(f"{_text(name)}: {name}" for name in last)
    firsts = "".join(f"any_value({name}) AS {name}, " for name in carried)
    judged = f"SELECT id, {firsts}max_by({{{packed}}}, step) AS last FROM audit GROUP BY id"
    shown = [
        *(f"judged.{name}" for name in ("id", *carried)),
        "archives.url AS archive",
        "split_part(id, '/', -1)::BIGINT AS \"offset\"",
        *(f"last.{name} AS {name}" for name in last),
    ]
    return (
        f"SELECT {', '.join(shown)} FROM ({judged}) AS judged "
        "LEFT JOIN archives ON archives.file = split_part(id, '/', 1) || '/' || split_part(id, '/', 2)"
    )


def query(plan: Plan, tables: list[AuditTable], sql: str) -> Answer:
    """What DuckDB answers. Files of an object store are read from checked copies in this machine's cache.

    Raises:
        ValueError: DuckDB is not installed, or cannot run the SQL.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ValueError(
            "--sql needs DuckDB: `pip install 'headrace[duckdb]'`; or take the files' addresses from "
            "`headrace audit --json` into another tool"
        ) from error
    with duckdb.connect() as connection:
        for statement in views(plan, tables, lambda checkpoint, file: checkpoint.local_path(file)):
            connection.execute(statement)
        try:
            result = connection.execute(sql)
        except duckdb.Error as error:
            names = [*dict.fromkeys(table.name for table in tables), "archives", "audit", "documents"]
            raise ValueError(f"{error}\nthe views are {', '.join(names)}") from error
        return Answer([column[0] for column in result.description or ()], result.fetchall())


def _node_query(name: str, tables: list[AuditTable], locate: Locate) -> str:
    parts = []
    for table in tables:
        if table.name == name:
            files = ", ".join(_text(str(locate(table.checkpoint, file))) for file in table.files)
            part = f"{_text(table.part)} AS part, " if table.part else ""
            parts.append(f"SELECT {part}* FROM read_parquet([{files}])")
    return " UNION ALL BY NAME ".join(parts)


def _view(name: str, select: str) -> str:
    return f"CREATE VIEW {_name(name)} AS {select};"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
