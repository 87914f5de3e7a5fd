"""headrace curve: the curve of a training, in the terminal or to TensorBoard, MLflow or W&B."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import options, show

if TYPE_CHECKING:
    from ray_jobs.checkpoint.curve import Curve
    from ray_jobs.checkpoint.layout import NodePath
    from ray_jobs.checkpoint.store import Store

NUM_LINES = 20
COLUMNS = ("step", "loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu", "heldout_bits_per_byte")


def curve(
    what: Annotated[
        str,
        typer.Argument(
            help="A run (`last` is the newest, also one under way), or a node as pretrain@ and its key's 16 digits."
        ),
    ] = "last",
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TARGET", help="tensorboard, mlflow or wandb; without it the terminal."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="tensorboard: the folder for `tensorboard --logdir`, by default tensorboard in HEADRACE_HOME. "
            "mlflow: a server's URL or a folder, by default MLFLOW_TRACKING_URI. wandb: its folder.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until training has come to its end.")] = False,
    store: options.StoreUrl = None,
    as_json: options.Json = False,
) -> None:
    """Shows the curve of a training, or gives it to TensorBoard, MLflow or W&B, also while training runs."""
    from tasks.curve import curve_nodes

    at = options.store_at(store)
    nodes = curve_nodes(at, what)
    if follow and len(nodes) > 1:
        names = ", ".join(f"{node.node}@{node.key[:16]}" for node in nodes)
        raise ValueError(f"--follow takes one node, and run {what} has {len(nodes)}: name one of {names}")
    if to is None:
        _show(at, nodes, follow, as_json)
        return
    for node in nodes:
        _feed(at, node, to, out, follow)


def _feed(at: "Store", node: "NodePath", to: str, out: str | None, follow: bool) -> None:
    from tasks.curve import feed, spec_of
    from tasks.curve_writers import name_of, writer_to
    from tasks.local import home

    folder = home() / "tensorboard"
    writer = writer_to(to, out, node, spec_of(at, node), folder)
    console = show.console()
    if to == "tensorboard":
        console.print(f"tensorboard --logdir {Path(out) if out else folder}", markup=False, soft_wrap=True)

    def told(curve: "Curve", new: int) -> None:
        if new or not follow:
            last = curve.lines[-1]["step"] if curve.lines else 0
            state = "its end" if curve.finished else f"step {last:,} so far"
            if not writer.takes_back and curve.sure < last:
                state += f"; what comes after its checkpoint of step {curve.sure:,} is written once that is sure"
            console.print(f"{name_of(node)}: {new:,} lines written, {state}", markup=False, soft_wrap=True)

    feed(at, node, writer, follow, told)


def _show(at: "Store", nodes: "list[NodePath]", follow: bool, as_json: bool) -> None:
    from ray_jobs.checkpoint.curve import standing_curve
    from tasks.curve import feed

    if follow:
        feed(at, nodes[0], _Terminal(as_json), follow=True)
        return
    curves = {f"{node.node}@{node.key[:16]}": standing_curve(at, node) for node in nodes}
    if as_json:
        show.print_json({name: list(curve.lines) for name, curve in curves.items()})
        return
    for name, curve in curves.items():
        _print_table(name, curve)


def _print_table(name: str, curve: "Curve") -> None:
    from rich.table import Table

    console = show.console()
    console.print(f"{name}, {'finished' if curve.finished else 'under way'}, {len(curve.lines):,} lines", markup=False)
    # The newest line, and others evenly before it.
    every = -(-len(curve.lines) // NUM_LINES) or 1
    shown = curve.lines[::-1][::every][::-1]
    columns = [column for column in COLUMNS if any(column in line for line in shown)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for line in shown:
        table.add_row(*(_figure(line.get(column)) for column in columns))
    console.print(table)


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


class _Terminal:
    """Prints each line as it comes; what is printed cannot be taken back, and so is sure."""

    takes_back = False

    def __init__(self, as_json: bool):
        self._as_json = as_json

    def last_step(self) -> int:
        return 0

    def add(self, line: dict[str, Any]) -> None:
        if self._as_json:
            print(json.dumps(line), flush=True)
            return
        figures = [f"{name.replace('_', ' ')} {_figure(line[name])}" for name in COLUMNS if name in line]
        print("  ".join(figures), flush=True)

    def take_back(self, step: int) -> None:
        raise AssertionError("only what is sure was printed")

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass
