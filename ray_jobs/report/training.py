"""Training: loss, gradient norm and learning rate over the steps, with spikes and restarts marked."""

import itertools
import json
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
STYLES = "abcdefg"
LEGEND_CHARACTERS = 40


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
    history = history_of(node)
    marks = [Mark(step, f"training went on from the checkpoint of step {step}") for step in history.restarts]
    marks += [Mark(step, f"spike of the {words}") for step, words in history.spikes]
    figures = [Figure("Loss", "nats a token, training batches", _chart(curve, [("loss", "a")], "nats", marks))]
    figures += _heldout(curve, marks)
    if column(curve, "grad_norm"):
        names = [("grad_norm_max", "b"), ("grad_norm", "a")]
        chart = _chart(curve, names, "norm", marks, True)
        figures.append(Figure("Gradient norm", "before clipping, on a logarithmic scale", chart))
    figures += _attention(curve, marks)
    if column(curve, "learning_rate"):
        figures.append(Figure("Learning rate", "", _chart(curve, [("learning_rate", "a")], "rate", [])))
    if column(curve, "tokens_per_second"):
        chart = _chart(curve, [("tokens_per_second", "a")], "tokens/s", marks)
        figures.append(Figure("Speed", "tokens a second, all ranks", chart))
    if column(curve, "mfu"):
        figures.append(
            Figure("MFU", "share of the GPUs' peak operations", _chart(curve, [("mfu", "a")], "share", marks))
        )
    notes = []
    if history.restarts:
        notes.append(f"{plural(len(history.restarts), 'restart')}, at step {_list(history.restarts)}")
    notes += [f"Spike at step {step}: {words}" for step, words in history.spikes]
    return TrainingView(node, facts(node), figures, notes)


def _heldout(curve: Sequence[dict[str, Any]], marks: Sequence[Mark]) -> list[Figure]:
    """What was measured while training ran."""
    figures = []
    by_domain = columns(curve, "heldout_bits_per_byte_by_domain")
    if column(curve, "heldout_bits_per_byte"):
        whole = Series("all", column(curve, "heldout_bits_per_byte"), "a")
        # With one domain alone its line is the same.
        lines = [whole, *_styled(by_domain, STYLES[1:])] if len(by_domain) > 1 else [whole]
        chart = line_chart(lines, "step", "bits per byte", marks=marks)
        figures.append(Figure("Held-out text", "bits per byte, by domain", chart))
    accuracy = columns(curve, "accuracy_by_set")
    if accuracy:
        chart = line_chart(_styled(accuracy, STYLES), "step", "share", marks=marks)
        figures.append(Figure("Questions", "share of multiple-choice questions answered rightly", chart))
    return figures


def _attention(curve: Sequence[dict[str, Any]], marks: Sequence[Mark]) -> list[Figure]:
    """How layers attend, by the one that is nearest to collapse and the one in the middle."""
    figures = []
    for name, title, unit, extreme, words in (
        ("attention_max_logit", "Largest attention logit", "logit", max, "highest layer"),
        ("attention_entropy", "Entropy of attention", "nats", min, "lowest layer"),
    ):
        layers = column(curve, name)
        if layers:
            series = [
                Series(words, [(step, extreme(values)) for step, values in layers], "b"),
                Series("median layer", [(step, statistics.median(values)) for step, values in layers], "a"),
            ]
            figures.append(Figure(title, "one sequence a rank", line_chart(series, "step", unit, marks=marks)))
    return figures


def _styled(lines: dict[str, list[tuple[float, float]]], styles: str) -> list[Series]:
    pairs = zip(lines.items(), itertools.cycle(styles), strict=False)
    return [Series(name[:LEGEND_CHARACTERS], points, style) for (name, points), style in pairs]


def read_curve(node: Node) -> list[dict[str, Any]]:
    """The records of the curve, by rising step."""
    data = node.checkpoint.read(node.checkpoint.files(CURVE)[0])
    return sorted((json.loads(line) for line in data.decode().splitlines() if line), key=lambda record: record["step"])


def column(curve: Sequence[dict[str, Any]], name: str) -> list[tuple[float, Any]]:
    return [(record["step"], record[name]) for record in curve if name in record]


def columns(curve: Sequence[dict[str, Any]], name: str) -> dict[str, list[tuple[float, float]]]:
    """As `column`, of a field that holds a figure for each of several names."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in curve:
        for key, value in record.get(name, {}).items():
            found.setdefault(key, []).append((record["step"], value))
    return found


@dataclass(frozen=True)
class History:
    """What happened to a training beside its steps, by the newest training checkpoint's receipt."""

    restarts: list[int]
    """Steps from which a new session went on."""
    spikes: list[tuple[int, str]]
    """Steps of loss spikes, and what was seen and done."""


def history_of(node: Node) -> History:
    store, path = node.checkpoint.store, NodePath(node.kind, node.checkpoint.key)
    newest = max((entry.path for entry in store.list(path.receipts("steps"))), default=None)
    data = store.get(newest) if newest else None
    state = json.loads(data)["state"] if data else {}
    restarts = [segment["first"] for segment in state.get("segments", [])[1:]]
    spikes = [(spike["step"], _in_words(spike)) for spike in state.get("spikes", {}).get("spikes", [])]
    return History(restarts, spikes)


def _in_words(spike: dict[str, Any]) -> str:
    value = "" if spike["value"] is None else f" {spike['value']:.3g} where {spike['median']:.3g} was usual"
    if spike["back_to"] is None:
        return f"{spike['kind']}{value}"
    batches = sum(hole["count"] for hole in spike["skipped"])
    return f"{spike['kind']}{value}; back to step {spike['back_to']}, past {batches:,} batches of data"


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
