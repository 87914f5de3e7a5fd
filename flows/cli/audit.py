"""headrace audit: every document's decisions, as tables."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.cli import options, show
from tasks.node import figure

if TYPE_CHECKING:
    from ray_jobs.checkpoint.checkpoint import Checkpoint
    from ray_jobs.checkpoint.shards import OutputFile
    from tasks.audit import Answer, AuditTable

SHOWN_FILES = 3
WIDEST_TABLE = 10
"""Columns; rows of more are shown a line a column."""


def audit(
    recipe: options.RecipeName = "demo",
    node: Annotated[str | None, typer.Option("--node", help="Only this node's audit.")] = None,
    sql: Annotated[
        str | None,
        typer.Option(
            "--sql",
            help="Asked of DuckDB, over one view a node, and over audit (all of them) and documents (last decisions).",
        ),
    ] = None,
    as_sql: Annotated[
        bool,
        typer.Option("--views", help="Prints the views as SQL, for `duckdb -init FILE`."),
    ] = False,
    store: options.StoreUrl = None,
    overrides: options.Overrides = None,
    crawl: options.Crawl = None,
    files: options.Files = None,
    as_json: options.Json = False,
) -> None:
    """Says where the audit of each node lies (a Parquet row for every document that entered), or asks them by SQL."""
    from tasks.audit import audit_tables, query, views
    from tasks.plan import make_plan

    plan = make_plan(options.recipe_with(recipe, overrides, crawl, files), options.store_at(store))
    tables = audit_tables(plan, node)
    if as_sql:
        # Not the console's, which would wrap the lines.
        for statement in views(plan, tables, _address):
            print(statement)
    elif sql is not None:
        answer = query(plan, tables, sql)
        if as_json:
            show.print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
        else:
            _print_answer(answer)
    elif as_json:
        show.print_json({"store": plan.store.url, "tables": [_as_json(table) for table in tables]})
    else:
        _print_tables(recipe, tables)


def _address(checkpoint: "Checkpoint", file: "OutputFile") -> str:
    """A path where there is one, for DuckDB as installed reads no file:// on every system."""
    local = checkpoint.store.local_path(file.path)
    return str(local) if local is not None else checkpoint.url(file)


def _as_json(table: "AuditTable") -> dict[str, object]:
    return {
        "node": table.name,
        "part": table.part,
        "key": table.checkpoint.key,
        "rows": table.num_rows,
        "schema": {field.name: str(field.type) for field in table.schema()},
        "files": [_address(table.checkpoint, file) for file in table.files],
    }


def _print_tables(recipe: str, tables: list["AuditTable"]) -> None:
    console = show.console()
    for table in tables:
        name = f"{table.name} {table.part}" if table.part else table.name
        console.print(f"{name} {table.checkpoint.key[:16]}  {table.num_rows:,} rows in {len(table.files):,} files")
        columns = ", ".join(f"{field.name} {field.type}" for field in table.schema())
        console.print(Text(f"  {columns}", style="dim"))
        for file in table.files[:SHOWN_FILES]:
            console.print(f"  {_address(table.checkpoint, file)}", markup=False, soft_wrap=True)
        if len(table.files) > SHOWN_FILES:
            console.print(f"  … and {len(table.files) - SHOWN_FILES:,} more, which --json lists")
    example = "SELECT node, rule, count(*) AS documents FROM documents GROUP BY ALL ORDER BY documents DESC"
    console.print(f'ask: headrace audit {recipe} --sql "{example}"', markup=False, soft_wrap=True)
    console.print(f"or:  headrace audit {recipe} --views > views.sql && duckdb -init views.sql", soft_wrap=True)


def _print_answer(answer: "Answer") -> None:
    console = show.console()
    if len(answer.columns) > WIDEST_TABLE:
        for row in answer.rows:
            for column, value in zip(answer.columns, row, strict=True):
                console.print(f"{column:<24} {_said(value)}", markup=False, soft_wrap=True)
            console.print()
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in answer.columns:
        table.add_column(Text(column), overflow="fold")
    for row in answer.rows:
        table.add_row(*(Text(_said(value)) for value in row))
    console.print(table)


def _said(value: object) -> str:
    if value is None:
        return "–"
    return figure(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value)
