"""Personal data that gave way to placeholders. What they hide is not shown."""

import re
from dataclasses import dataclass

from markupsafe import Markup

from ray_jobs.report.charts import bar, bar_chart
from ray_jobs.report.figures import count
from ray_jobs.report.nodes import Node, Nodes, read_receipts, spread
from ray_jobs.report.page import Section

PLACEHOLDER = re.compile(r"(<[A-Z][A-Z_]+>)")


@dataclass(frozen=True)
class Excerpt:
    id: str
    kind: str
    parts: list[tuple[bool, str]]
    """(is a placeholder, text)"""


@dataclass(frozen=True)
class ScrubView:
    node: Node
    kinds: Markup
    excerpts: list[Excerpt]


def personal_section(nodes: Nodes, num_samples: int) -> Section | None:
    views = [view for node in nodes.funnels() if (view := _view(node, num_samples))]
    return Section("personal", "Personal data", "personal.html", {"views": views}) if views else None


def _view(node: Node, num_samples: int) -> ScrubView | None:
    counters = node.manifest.counters
    kinds = {name.removeprefix("replaced."): n for name, n in counters.items() if name.startswith("replaced.")}
    if not kinds:
        return None
    told = [
        sample
        for receipt in read_receipts(node, "documents")
        if isinstance(receipt.info.get("samples"), list)
        for sample in receipt.info["samples"]
    ]
    excerpts = []
    for kind in sorted(kinds):
        for sample in spread([sample for sample in told if sample["kind"] == kind], num_samples):
            parts = [(bool(PLACEHOLDER.fullmatch(part)), part) for part in PLACEHOLDER.split(sample["text"]) if part]
            excerpts.append(Excerpt(sample["id"], kind, parts))
    bars = [bar(kind, n, count(n)) for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    return ScrubView(node, bar_chart(bars, "replacements by kind"), excerpts)
