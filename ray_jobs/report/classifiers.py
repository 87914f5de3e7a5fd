"""Classifiers: how well each tells documents that it was not trained on, and where its threshold lies."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ray_jobs.report.charts import Layer, Mark, Series, histogram, line_chart
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import count
from ray_jobs.report.nodes import Node, Nodes, read_receipts, read_rows
from ray_jobs.report.overview import facts
from ray_jobs.report.page import Section

STAGE, HELDOUT, THRESHOLD = "classifier", "heldout.parquet", "threshold.json"
COLUMNS = {"classifier": "quality", "toxicity": "toxicity"}
"""Slot of a quality node -> the column of its audit that the classifier fills."""
NUM_BINS = 25


@dataclass(frozen=True)
class ClassifierView:
    node: Node
    facts: list[tuple[str, str]]
    figures: list[Figure]
    positive: str
    chosen: dict[str, Any] | None
    """As threshold.json has it; None where there was nothing to measure on."""


def classifiers_section(nodes: Nodes) -> Section | None:
    views = [_view(nodes, node) for node in nodes.of_kind("classifier")]
    if not views:
        return None
    names = tuple(view.node.name for view in views)
    return Section("classifiers", "Classifiers", "classifiers.html", {"views": views}, names)


def _view(nodes: Nodes, node: Node) -> ClassifierView:
    positive = str(node.spec.get("positive", ""))
    found = node.checkpoint.files(THRESHOLD)
    chosen = json.loads(node.checkpoint.read(found[0])) if found else None
    figures = []
    if chosen:
        figures += [roc_figure(receipt.info["curve"], chosen) for receipt in read_receipts(node, STAGE)]
        scores = read_rows(node, HELDOUT, ["label", "score"])
        is_positive = np.array([label == positive for label in scores["label"].to_pylist()], dtype=bool)
        figures.append(scores_figure(scores["score"].to_numpy(), is_positive, positive, chosen["threshold"]))
    for reader in nodes.of_kind("quality"):
        for slot, column in COLUMNS.items():
            if reader.inputs.get(slot) == node.name:
                figures += corpus_figures(reader, column)
    return ClassifierView(node, facts(node), figures, positive, chosen)


def roc_figure(curve: list[list[float]], chosen: dict[str, Any]) -> Figure:
    """The curve, the threshold's point on it, and chance."""
    confusion = chosen["confusion"]
    negatives = confusion["false_positives"] + confusion["true_negatives"]
    point = (confusion["false_positives"] / negatives, chosen["recall"])
    chart = line_chart(
        [
            Series("classifier", [(x, y) for x, y in curve]),
            Series("chosen threshold", [point]),
            Series("chance", [(0.0, 0.0), (1.0, 1.0)], "b"),
        ],
        "false positive rate",
        "recall",
    )
    return Figure("ROC curve", f"area under it {chosen['auc']:.3f}, on documents held out", chart)


def scores_figure(scores: np.ndarray, is_positive: np.ndarray, positive: str, threshold: float) -> Figure:
    """How the scores of both kinds lie."""
    chart = _stacked(scores, [(positive, "a", is_positive), ("others", "n", ~is_positive)], threshold)
    return Figure("Scores", f"{count(len(scores))} documents held out; threshold {threshold:.3f}", chart)


def corpus_figures(reader: Node, column: str) -> list[Figure]:
    """How the scores of the documents lie that a quality node judged, as far as this report reads its audit."""
    audit = read_rows(reader, "audit.parquet", ["decision", column])
    if column not in audit.column_names:
        return []
    audit = audit.filter(audit[column].is_valid())
    kept = np.array(audit["decision"].to_pylist()) == "kept"
    threshold = reader.manifest.metrics.get(f"{column}_threshold")
    mark = float(threshold) if threshold is not None else None
    chart = _stacked(audit[column].to_numpy(), [("kept", "a", kept), ("dropped", "d0", ~kept)], mark)
    what = "no threshold" if mark is None else f"threshold {mark:.3f}"
    return [Figure(f"Scores in {reader.name}", f"{count(audit.num_rows)} documents; {what}", chart)]


def _stacked(scores: np.ndarray, parts: list[tuple[str, str, np.ndarray]], threshold: float | None) -> Markup:
    edges = np.linspace(0, 1, NUM_BINS + 1)
    layers = [Layer(name, np.histogram(scores[part], edges)[0].tolist(), style) for name, style, part in parts]
    marks = [] if threshold is None else [Mark(threshold, f"threshold {threshold:.4g}")]
    return histogram(edges.tolist(), layers, "score", "documents", marks=marks)
