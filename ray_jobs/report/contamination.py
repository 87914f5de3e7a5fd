"""Documents that held text of the evaluation sets, by set, and some of what they shared."""

from dataclasses import dataclass
from typing import Any

from ray_jobs.report.figures import figure, words
from ray_jobs.report.nodes import Node, Nodes, read_rows, rows_at, spread
from ray_jobs.report.page import Section

FILE = "contamination.parquet"


@dataclass(frozen=True)
class SetRow:
    name: str
    examples: int
    documents: int
    """That share text with one of them."""


@dataclass(frozen=True)
class ContaminationView:
    node: Node
    facts: list[tuple[str, str]]
    sets: list[SetRow]
    hits: list[dict[str, Any]]
    """id, set, example, count and words of a few."""


def contamination_section(nodes: Nodes, num_samples: int) -> Section | None:
    checked = [
        (node, nodes[node.inputs["eval_sets"]])
        for node in nodes
        if "eval_sets" in node.inputs and node.checkpoint.files(FILE)
    ]
    if not checked:
        return None
    views = [_view(node, eval_sets, num_samples) for node, eval_sets in checked]
    shown = tuple(dict.fromkeys(eval_sets.name for _, eval_sets in checked))
    return Section("contamination", "Contamination", "contamination.html", {"views": views}, shown)


def _view(node: Node, eval_sets: Node, num_samples: int) -> ContaminationView:
    counters, metrics = node.manifest.counters, node.manifest.metrics
    examples = {
        name.removeprefix("examples."): number
        for name, number in eval_sets.manifest.counters.items()
        if name.startswith("examples.")
    }
    sets = [SetRow(name, number, counters.get(f"contaminated.{name}", 0)) for name, number in examples.items()]
    names = ("dropped.contaminated", "documents_cut", "common_ngrams", "examples_too_short")
    known = {**counters, **metrics}
    facts = [(words(name), figure(known[name])) for name in names if name in known]
    found = read_rows(node, FILE, ["id", "set", "example", "count", "words"])
    hits = rows_at(found, spread(range(found.num_rows), num_samples)) if found.num_rows else []
    return ContaminationView(node, facts, sorted(sets, key=lambda row: (-row.documents, row.name)), hits)
