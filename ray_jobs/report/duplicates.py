"""Pairs of documents that were found to duplicate one another, side by side with their differences marked."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ray_jobs.report.charts import bar, bar_chart
from ray_jobs.report.figures import count, masked
from ray_jobs.report.nodes import Node, Nodes, kept_texts, read_receipts, read_rows, rows_at, spread, texts_of
from ray_jobs.report.page import Section

COMPARED_WORDS = 600
"""Words of each document that are compared: the time grows with their square."""
COMPARED_CHARACTERS = 20_000
WORD_CHARACTERS = 80
SHOWN_WORDS = 90
LEAD_WORDS = 12
"""Shown before the first difference."""


@dataclass(frozen=True)
class Pair:
    rule: str
    similarity: float
    sides: list["Side"]


@dataclass(frozen=True)
class Side:
    role: str
    id: str
    url: str
    words: list[tuple[bool, str]]
    """(differs, words) in order; empty where the text is not among what the report reads."""
    begins_late: bool
    goes_on: bool
    gone: str | None
    """The node of an earlier crawl whose documents the store has no more, where a text may have stood with it."""


@dataclass(frozen=True)
class DuplicatesView:
    node: Node
    pairs: list[Pair]
    clusters: Markup | None
    emptied: list[dict[str, Any]]
    """Sources that lost more than the spec's share: source, documents_in, documents_kept."""


def duplicates_section(nodes: Nodes, num_samples: int) -> Section | None:
    views = [view for node in nodes.funnels() if (view := _view(nodes, node, num_samples))]
    return Section("duplicates", "Duplicates", "duplicates.html", {"views": views}) if views else None


def _view(nodes: Nodes, node: Node, num_samples: int) -> DuplicatesView | None:
    import pyarrow.compute as pc

    audit = read_rows(node, "audit.parquet", ["id", "rule", "duplicate_of", "similarity"])
    if "duplicate_of" not in audit.column_names:
        return None
    found = audit.filter(pc.is_valid(audit["duplicate_of"])).sort_by([("similarity", "ascending"), ("id", "ascending")])
    if not found.num_rows:
        return None
    # Equal texts have little to show: one pair of them is enough.
    is_equal = pc.equal(found["rule"], "exact")
    equal = found.filter(is_equal).slice(0, min(1, num_samples)).to_pylist()
    near = found.filter(pc.invert(is_equal))
    chosen = [*rows_at(near, spread(range(near.num_rows), num_samples - len(equal))), *equal]
    texts = texts_of(
        nodes.input_with(node, "documents.parquet"), {row[name] for row in chosen for name in ("id", "duplicate_of")}
    )
    # What was kept stands with this node, or with that of an earlier crawl.
    kept, gone = kept_texts(node, {row["duplicate_of"] for row in chosen} - texts.keys())
    pairs = [_pair(row, texts | kept, gone) for row in chosen]
    return DuplicatesView(node, pairs, _clusters(node), _emptied(node))


def _pair(row: dict[str, Any], texts: dict[str, tuple[str, str]], gone: str | None) -> Pair:
    ids = {"kept": row["duplicate_of"], "dropped": row["id"]}
    words = {role: words_of(texts.get(name, ("", ""))[1]) for role, name in ids.items()}
    parts, start = differences(words["kept"], words["dropped"])
    sides = [
        Side(
            role,
            name,
            masked(texts.get(name, ("", ""))[0]),
            part,
            first > 0,
            first + SHOWN_WORDS < len(words[role]),
            gone if role == "kept" else None,
        )
        for (role, name), part, first in zip(ids.items(), parts, start, strict=True)
    ]
    return Pair(row["rule"], row["similarity"], sides)


def words_of(text: str) -> list[str]:
    """The first words, none of them longer than a line."""
    return [word[:WORD_CHARACTERS] for word in masked(text[:COMPARED_CHARACTERS]).split()[:COMPARED_WORDS]]


def differences(
    first: Sequence[str], second: Sequence[str]
) -> tuple[tuple[list[tuple[bool, str]], list[tuple[bool, str]]], tuple[int, int]]:
    """For both texts (differs, words) around the first difference, and the word where each excerpt begins."""
    steps = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    lead = next(((a, b) for what, a, _, b, _ in steps if what != "equal"), (0, 0))
    begin = (max(0, lead[0] - LEAD_WORDS), max(0, lead[1] - LEAD_WORDS))
    parts: tuple[list[tuple[bool, str]], list[tuple[bool, str]]] = ([], [])
    for what, a, a_end, b, b_end in steps:
        for part, words, low, high, start in (
            (parts[0], first, a, a_end, begin[0]),
            (parts[1], second, b, b_end, begin[1]),
        ):
            low, high = max(low, start), min(high, start + SHOWN_WORDS)
            if low < high:
                part.append((what != "equal", " ".join(words[low:high])))
    return parts, begin


def _clusters(node: Node) -> Markup | None:
    """Sizes of the groups of documents that agree, where the node tells them."""
    sizes = Counter[str]()
    for receipt in read_receipts(node, "duplicates"):
        sizes.update(receipt.info.get("cluster_sizes", {}))
    if not sizes:
        return None
    ordered = sorted(sizes.items(), key=lambda one: int(one[0].split("-")[0]))
    return bar_chart([bar(f"{size} documents", n, count(n)) for size, n in ordered], "groups by size")


def _emptied(node: Node) -> list[dict[str, Any]]:
    """Sources that the node's alarm names."""
    return [loss for receipt in read_receipts(node, "sources") for loss in receipt.info.get("over_loss", [])]
