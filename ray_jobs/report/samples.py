"""A few documents that each rule kept or dropped, chosen in the same way each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_jobs.checkpoint.shards import Receipt
from ray_jobs.report.documents import dropped_by
from ray_jobs.report.figures import figure, masked
from ray_jobs.report.nodes import Node, Nodes, few_files, read_receipts, read_rows, rows_at, spread, texts_of
from ray_jobs.report.page import Section

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = "kept"
MAX_CHARACTERS = 2000
"""Of a text, before its excerpt is made."""
COLUMNS = ("id", "url", "decision", "rule", "value", "threshold", "source", "similarity", "duplicate_of")


@dataclass(frozen=True)
class Sample:
    id: str
    url: str
    text: str
    measured: str
    """What the rule measured, beside its threshold."""


@dataclass(frozen=True)
class RuleView:
    rule: str
    meaning: str
    """Whose rule it is, or what it means."""
    num_documents: int
    samples: list[Sample]


@dataclass(frozen=True)
class StageSamples:
    node: Node
    rules: list[RuleView]


def samples_section(nodes: Nodes, num_samples: int) -> Section | None:
    if not num_samples:
        return None
    stages = [StageSamples(node, rules) for node in nodes.funnels() if (rules := rules_of(nodes, node, num_samples))]
    return Section("samples", "Kept and dropped", "samples.html", {"stages": stages}) if stages else None


def rules_of(nodes: Nodes, node: Node, num_samples: int) -> list[RuleView]:
    """What was kept, then each rule that dropped documents, most first; none where nothing was dropped."""
    import pyarrow.compute as pc

    dropped = dropped_by(node)
    audit = read_rows(node, "audit.parquet", COLUMNS)
    if not dropped or not {"id", "decision", "rule"} <= set(audit.column_names):
        return []
    told = texts_told(read_receipts(node, few_files(node, "audit.parquet")[0].stage))
    chosen = {}
    for rule in [KEPT, *(rule for rule, _ in dropped)]:
        is_ours = pc.equal(audit["decision"], KEPT) if rule == KEPT else pc.equal(audit["rule"], rule)
        chosen[rule] = choose(audit.filter(is_ours), told.get(rule, {}), num_samples)
    ids = {rule: {row["id"] for row in rows} for rule, rows in chosen.items()}
    # A dropped document's text is upstream; where that is no document yet, the stage itself told a few.
    upstream = texts_of(nodes.input_with(node, "documents.parquet"), set().union(*ids.values()) - ids.get(KEPT, set()))
    texts = {**upstream, **texts_of(node, ids.get(KEPT, set()))}
    views = []
    for rule, number in [(KEPT, node.manifest.counters.get("documents_kept", 0)), *dropped]:
        rows = chosen[rule]
        samples = []
        for row in rows:
            url, text = texts.get(row["id"], (row.get("url") or "", told.get(rule, {}).get(row.get("url") or "", "")))
            samples.append(
                Sample(row["id"], masked(row.get("url") or url), masked(text[:MAX_CHARACTERS]), measured(row))
            )
        meaning = next((row["source"] for row in rows if row.get("source")), "")
        views.append(RuleView(rule, meaning, number, samples))
    return views


def choose(rows: "pa.Table", told: dict[str, str], num_samples: int) -> list[dict[str, Any]]:
    """Evenly spaced rows; first of those whose text the stage told, then of the others."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    has_text = np.zeros(rows.num_rows, dtype=bool)
    if told and "url" in rows.column_names:
        urls = pa.array([url for url, text in told.items() if text], pa.string())
        has_text = pc.is_in(rows["url"].cast(pa.string()), urls).to_numpy()
    first = spread(np.flatnonzero(has_text).tolist(), num_samples)
    others = spread(np.flatnonzero(~has_text).tolist(), num_samples - len(first))
    return rows_at(rows, [*first, *others])


def texts_told(receipts: Sequence[Receipt]) -> dict[str, dict[str, str]]:
    """rule -> url -> text, from the samples that a stage's receipts carry by rule."""
    told: dict[str, dict[str, str]] = {}
    for receipt in receipts:
        by_rule = receipt.info.get("samples")
        if isinstance(by_rule, dict):
            for rule, samples in by_rule.items():
                told.setdefault(rule, {}).update({sample["url"]: sample["text"] for sample in samples})
    return told


def measured(row: dict[str, Any]) -> str:
    if row.get("similarity") is not None:
        return f"similarity {row['similarity']:.3f}"
    value, threshold = row.get("value"), row.get("threshold")
    parts = [] if value is None else [f"measured {figure(tidy(value))}"]
    parts += [] if threshold is None else [f"threshold {figure(tidy(threshold))}"]
    return ", ".join(parts)


def tidy(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 4)
