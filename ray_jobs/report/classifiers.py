"""Classifiers: how well each tells documents that it was not trained on, and where its threshold lies."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ray_jobs.report.charts import Layer, Series, histogram, line_chart
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import count
from ray_jobs.report.nodes import Node, Nodes, read_receipts, read_rows
from ray_jobs.report.overview import facts
from ray_jobs.report.page import Section

STAGE, HELDOUT, THRESHOLD = "classifier", "heldout.parquet", "threshold.json"
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
    views = [_view(node) for node in nodes.of_kind("classifier")]
    if not views:
        return None
    names = tuple(view.node.name for view in views)
    return Section("classifiers", "Classifiers", "classifiers.html", {"views": views}, names)


def _view(node: Node) -> ClassifierView:
    positive = str(node.spec.get("positive", ""))
    found = node.checkpoint.files(THRESHOLD)
    if not found:
        return ClassifierView(node, facts(node), [], positive, None)
    chosen = json.loads(node.checkpoint.read(found[0]))
    figures = [roc_figure(receipt.info["curve"], chosen) for receipt in read_receipts(node, STAGE)]
    scores = read_rows(node, HELDOUT, ["label", "score"])
    is_positive = np.array([label == positive for label in scores["label"].to_pylist()], dtype=bool)
    figures.append(scores_figure(scores["score"].to_numpy(), is_positive, positive, chosen["threshold"]))
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
    edges = np.linspace(0, 1, NUM_BINS + 1)
    both = [np.histogram(scores[part], edges)[0].tolist() for part in (is_positive, ~is_positive)]
    layers = [Layer(positive, both[0], "a"), Layer("others", both[1], "n")]
    chart: Markup = histogram(edges.tolist(), layers, "score", "documents")
    return Figure("Scores", f"{count(len(scores))} documents held out; threshold {threshold:.3f}", chart)
