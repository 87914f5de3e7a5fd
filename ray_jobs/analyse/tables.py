"""Results as tables of the terminal, or as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Rows:
    """A table: rows of the same columns, and what they say."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""


def show(tables: Sequence[Rows], *, as_json: bool) -> None:
    if as_json:
        content = [{"title": table.title, "note": table.note, "rows": list(table.rows)} for table in tables]
        print(json.dumps(content, ensure_ascii=False, indent=1))
        return
    console = Console()
    for one in tables:
        table = Table(title=one.title, title_justify="left", title_style="bold")
        for name in one.rows[0]:
            numeric = all(isinstance(row[name], int | float | None) for row in one.rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in one.rows:
            table.add_row(*map(_cell, row.values()))
        console.print(table)
        if one.note:
            console.print(one.note + "\n", style="dim")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,}"
        if _number(value)
        else str(value)
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
