"""Evaluation: bits per byte of the model beside models that only count, with intervals, and what the model writes."""

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ray_jobs.report.charts import Bar, bar_chart
from ray_jobs.report.nodes import Node, Nodes
from ray_jobs.report.overview import facts
from ray_jobs.report.page import Section

RESULTS, SAMPLES = "results.json", "samples.json"


@dataclass(frozen=True)
class EvaluationView:
    node: Node
    facts: list[tuple[str, str]]
    scores: Markup | None
    num_documents: int | None
    samples: list[dict[str, Any]]
    """Each with document, prompt, continuation, reference and ended."""


def evaluation_section(nodes: Nodes, num_samples: int) -> Section | None:
    studied = nodes.studied()
    views = [_view(node, num_samples) for node in nodes if node.checkpoint.files(RESULTS) and node.name not in studied]
    if not views:
        return None
    names = tuple(view.node.name for view in views)
    return Section("evaluation", "Evaluation", "evaluation.html", {"views": views}, names)


def _view(node: Node, num_samples: int) -> EvaluationView:
    results = _read(node, RESULTS)
    samples = _read(node, SAMPLES) if node.checkpoint.files(SAMPLES) else []
    return EvaluationView(node, facts(node), scores(results), results.get("documents"), samples[:num_samples])


def scores(results: dict[str, Any]) -> Markup | None:
    """A bar for each model that was scored, the best first."""
    models = {name: entry for name, entry in results.items() if isinstance(entry, dict) and "bits_per_byte" in entry}
    bars = []
    for name in sorted(models, key=lambda name: (models[name]["bits_per_byte"], name)):
        entry = models[name]
        interval = entry.get("bits_per_byte_95")
        figure = f"{entry['bits_per_byte']:.3f}"
        if interval:
            figure += f" ({interval[0]:.3f}–{interval[1]:.3f})"
        style = "a" if name == "model" else "n"
        bars.append(
            Bar(name, [(name, entry["bits_per_byte"], style)], figure, interval=tuple(interval) if interval else None)
        )
    return bar_chart(bars, "bits per byte of held-out text") if bars else None


def _read(node: Node, name: str) -> Any:
    return json.loads(node.checkpoint.read(node.checkpoint.files(name)[0]))
