"""Training: loss, gradient norm and learning rate over the steps, with spikes and restarts marked."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.report.charts import Mark, Series, line_chart
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import compact, plural
from ray_jobs.report.nodes import Node, Nodes
from ray_jobs.report.overview import facts
from ray_jobs.report.page import Section

CURVE = "metrics.jsonl"
SPIKE_WINDOW = 20
SPIKE_RATIO = 3.0
"""A norm this many times the median of the lines before it is called a spike."""


@dataclass(frozen=True)
class TrainingView:
    node: Node
    facts: list[tuple[str, str]]
    figures: list[Figure]
    notes: list[str]


def training_section(nodes: Nodes) -> Section | None:
    studied = nodes.studied()
    views = [_view(node) for node in nodes if node.checkpoint.files(CURVE) and node.name not in studied]
    if not views:
        return None
    return Section("training", "Training", "training.html", {"views": views}, tuple(view.node.name for view in views))


def _view(node: Node) -> TrainingView:
    curve = read_curve(node)
    restarts = restarts_of(node)
    marks = [Mark(step, f"training went on from the checkpoint of step {step}") for step in restarts]
    norms = column(curve, "grad_norm_max") or column(curve, "grad_norm")
    spikes = spikes_of(norms)
    figures = [Figure("Loss", "nats a token, training batches", _chart(curve, [("loss", "a")], "nats", marks))]
    if norms:
        names = [("grad_norm_max", "b"), ("grad_norm", "a")]
        norm_marks = [*marks, *(Mark(step, f"gradient norm {norm:.3g}") for step, norm in spikes)]
        figures.append(
            Figure(
                "Gradient norm",
                "before clipping, on a logarithmic scale",
                _chart(curve, names, "norm", norm_marks, True),
            )
        )
    if column(curve, "learning_rate"):
        figures.append(Figure("Learning rate", "", _chart(curve, [("learning_rate", "a")], "rate", [])))
    if column(curve, "tokens_per_second"):
        chart = _chart(curve, [("tokens_per_second", "a")], "tokens/s", marks)
        figures.append(Figure("Speed", "tokens a second, all ranks", chart))
    if column(curve, "mfu"):
        figures.append(
            Figure("MFU", "share of the GPUs' peak operations", _chart(curve, [("mfu", "a")], "share", marks))
        )
    notes = [f"{plural(len(restarts), 'restart')}, at step {_list(restarts)}"] if restarts else []
    if spikes:
        notes.append(
            f"{plural(len(spikes), 'spike')} of the gradient norm, at step {_list([step for step, _ in spikes])}"
        )
    return TrainingView(node, facts(node), figures, notes)


def read_curve(node: Node) -> list[dict[str, Any]]:
    """The records of the curve, by rising step."""
    data = node.checkpoint.read(node.checkpoint.files(CURVE)[0])
    return sorted((json.loads(line) for line in data.decode().splitlines() if line), key=lambda record: record["step"])


def column(curve: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(record["step"], record[name]) for record in curve if name in record]


def spikes_of(norms: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(step, norm) where the norm leaps out of the lines before it; the first lines have none to leap out of."""
    found = []
    for place in range(SPIKE_WINDOW, len(norms)):
        before = statistics.median(norm for _, norm in norms[place - SPIKE_WINDOW : place])
        if math.isfinite(norms[place][1]) and norms[place][1] > SPIKE_RATIO * before:
            found.append(norms[place])
    return found


def restarts_of(node: Node) -> list[int]:
    """Steps from which a new session went on, by the newest training checkpoint's receipt."""
    store, path = node.checkpoint.store, NodePath(node.kind, node.checkpoint.key)
    newest = max((entry.path for entry in store.list(path.receipts("steps"))), default=None)
    data = store.get(newest) if newest else None
    segments = json.loads(data).get("state", {}).get("segments", []) if data else []
    return [segment["first"] for segment in segments[1:]]


def _chart(
    curve: Sequence[dict[str, Any]],
    names: Sequence[tuple[str, str]],
    label: str,
    marks: Sequence[Mark],
    log: bool = False,
) -> Any:
    series = [
        Series(name.replace("_", " "), column(curve, name), style) for name, style in names if column(curve, name)
    ]
    return line_chart(series, "step", label, log, marks)


def _list(steps: Sequence[float]) -> str:
    shown = ", ".join(compact(step) for step in steps[:5])
    return shown if len(steps) <= 5 else f"{shown} and {len(steps) - 5} more"
