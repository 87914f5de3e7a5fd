"""python -m tests.benchmarks.table [--write]: the README's table of measured speed, of the newest results."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import CALIBRATION, LOAD, RESULTS

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)


def newest_figures() -> dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]]:
    """(room, figure) -> (the figure, the result that it stands in). An older one is of older code, however quiet the
    machine was."""
    found: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
    for result in sorted((json.loads(file.read_text()) for file in RESULTS.glob("*.json")), key=lambda r: r["when"]):
        for figure in result["figures"]:
            if figure["value"] is None or figure["name"] == CALIBRATION:
                continue
            found[result["room"], figure["name"]] = figure, result
    return found


def load(figure: dict[str, Any], result: dict[str, Any]) -> float:
    """When the figure was taken; older results know only that of their end."""
    value: float = figure["notes"].get(LOAD, result["machine"][LOAD])
    return value


def number(value: float) -> str:
    """Three digits that count, without an exponent: 0.929, 73.5, 49,300."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{value:.3g}"


def table() -> str:
    rows = ["| figure | measured | target | load | when, commit |", "|---|---|---|---|---|"]
    machines = set()
    for (room, name), (figure, result) in sorted(newest_figures().items()):
        machine = result["machine"]
        machines.add(
            f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB, {machine['system']}"
        )
        low, high = min(figure["values"]), max(figure["values"])
        spread = f" ({number(low)}–{number(high)})" if low != high else ""
        rows.append(
            f"| {room}: `{name}` | {number(figure['value'])} {figure['unit']}{spread} | {figure['target'] or '–'} | "
            f"{load(figure, result):.0f} | "
            f"{result['when'][:10]}, {result['commit'][:8]} |"
        )
    return "\n".join(rows) + f"\n\nMedians with minimum and maximum, on {'; '.join(sorted(machines))}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    if not parser.parse_args().write:
        print(table())
        return
    text, count = SECTION.subn(lambda _: table(), README.read_text())
    if count != 1:
        raise SystemExit("README.md has no <!-- measured --> … <!-- /measured --> section to write the table into")
    README.write_text(text)


if __name__ == "__main__":
    main()
