"""How things look in a terminal, and as plain lines where there is none."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ray_jobs.checkpoint.runs import Run
from tasks.estimate import Estimate
from tasks.plan import HIT, Plan

STATE_STYLES = {
    "HIT": "cyan",
    "DONE": "green",
    "RUN": "yellow",
    "RESUME": "yellow",
    "UNPINNED": "magenta",
    "RUNNING": "bold yellow",
    "FAILED": "bold red",
    "SKIPPED": "dim",
    "CANCELLED": "magenta",
    "WAITING": "dim",
}


def console() -> Console:
    return Console(highlight=False)


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def styled(state: str) -> str:
    style = STATE_STYLES.get(state)
    return f"[{style}]{state}[/]" if style else state


def compact(value: float) -> str:
    """950, 1.30K, 72.0B, 1.33T: three digits."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        # What would round up to 1,000 of a unit is 1.00 of the next.
        if value >= size * 0.9995:
            return f"{value / size:#.3g}".removesuffix(".") + unit
    return f"{value:.3g}"


def dollars(amount: float) -> str:
    """$3.46, $12,346, $1.21M."""
    if amount < 999.995:
        return f"${amount:.2f}"
    return f"${amount:,.0f}" if round(amount) < 1_000_000 else f"${compact(amount)}"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3.5 days."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds) < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    if seconds < 48 * 3600:
        return "{} h {} min".format(*divmod(round(seconds / 60), 60))
    return f"{seconds / 86400:,.1f} days"


def plan_table(plan: Plan, estimates: Mapping[str, Estimate]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "key", "state", "why"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"node", "key", "state"})
    table.add_column("estimate", justify="right", no_wrap=True)
    for name, node in plan.nodes.items():
        guess = estimates.get(name)
        table.add_row(
            name,
            node.key[:16],
            styled(node.state) + (" [red]DRIFT[/]" if node.drift else ""),
            "; ".join(node.why),
            duration(guess.seconds) if guess else "",
        )
    return table


def plan_as_json(plan: Plan, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        "recipe": plan.recipe.name,
        "store": plan.store.url,
        "nodes": {
            name: {
                "node": node.kind,
                "key": node.key,
                "state": node.state,
                "drift": node.drift,
                "why": list(node.why),
                "estimate": vars(estimates[name]) if name in estimates else None,
            }
            for name, node in plan.nodes.items()
        },
    }


def run_table(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node", no_wrap=True)
    table.add_column("key", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for name, node in run.nodes.items():
        took = duration(node.seconds) if node.state == "DONE" else ""
        table.add_row(name, node.key[:16], styled(node.state), took, node.headline or node.error.split("\n")[0])
    return table


def estimate_line(plan: Plan, estimates: Mapping[str, Estimate]) -> str:
    num_hits = sum(node.state == HIT for node in plan.nodes.values())
    if not estimates:
        return f"{num_hits} of {len(plan.nodes)} nodes stand; nothing to run"
    total = list(estimates.values())
    seconds = sum(guess.seconds for guess in total)
    cores, gpus = sum(guess.core_hours for guess in total), sum(guess.gpu_hours for guess in total)
    basis = ", ".join(sorted({guess.basis for guess in total}))
    hours = f"{cores:,.2f} core-hours" + (f", {gpus:,.1f} GPU-hours" if gpus else "")
    dollars = sum(guess.dollars for guess in total)
    return (
        f"{num_hits} of {len(plan.nodes)} nodes stand; {len(estimates)} to run in about {duration(seconds)}: "
        f"{hours}, ${dollars:,.2f} (by {basis})"
    )
