"""The documents: how many came through, why the others did not, which languages and lengths they have."""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from ray_jobs.report.charts import Bar, FunnelStage, Layer, Mark, bar, bar_chart, funnel, histogram
from ray_jobs.report.figures import compact, count, data_size, share
from ray_jobs.report.nodes import Node, Nodes, few_files, read_rows, read_table
from ray_jobs.report.page import Section

NUM_BARS = 10
BINS_A_DECADE = 6
FINE_BINS_A_DECADE = 20
NUM_LANGUAGES = 4
"""Whose perplexities are shown: those with most documents."""
BUCKETS = (("head", "a"), ("middle", "b"), ("tail", "d1"))


@dataclass(frozen=True)
class StageView:
    node: Node
    entered: int
    kept: int
    size_in: str
    size_kept: str
    reasons: Markup | None


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    title: str
    note: str
    chart: Markup


def documents_section(nodes: Nodes) -> Section | None:
    funnels = nodes.funnels()
    if not funnels:
        return None
    stages = [_stage(nodes, node) for node in funnels]
    figures = [figure for node in funnels for figure in [*_audit_figures(node), *_perplexities(node)]]
    return Section(
        "documents",
        "Documents",
        "documents.html",
        {"funnel": funnel([stage for stage, _ in stages]), "stages": [view for _, view in stages], "figures": figures},
        tuple(node.name for node in funnels),
    )


def dropped_by(node: Node) -> list[tuple[str, int]]:
    """(rule, documents) of the rules that dropped any, most first."""
    counters = node.manifest.counters
    found = [(name.removeprefix("dropped."), n) for name, n in counters.items() if name.startswith("dropped.") and n]
    return sorted(found, key=lambda reason: (-reason[1], reason[0]))


def _stage(nodes: Nodes, node: Node) -> tuple[FunnelStage, StageView]:
    counters = node.manifest.counters
    entered, kept, dropped = counters["documents_in"], counters.get("documents_kept", 0), dropped_by(node)
    upstream = nodes.input_with(node, "documents.parquet")
    continues = upstream is not None and upstream.manifest.counters.get("documents_kept") == entered
    reasons = None
    if dropped:
        rows = [
            bar(reason, n, f"{count(n)} · {share(n, entered)}", f"d{min(place, 4)}")
            for place, (reason, n) in enumerate(dropped)
        ]
        reasons = bar_chart(rows, f"documents that {node.name} dropped, by reason")
    view = StageView(node, entered, kept, _size(node, "in"), _size(node, "kept"), reasons)
    return FunnelStage(node.name, entered, kept, dropped, continues), view


def _size(node: Node, which: str) -> str:
    counters = node.manifest.counters
    if f"text_bytes_{which}" in counters:
        return data_size(counters[f"text_bytes_{which}"])
    if f"characters_{which}" in counters:
        return f"{compact(counters[f'characters_{which}'])} characters"
    return "–"


def _audit_figures(node: Node) -> list[Figure]:
    """Languages, lengths and hosts, as far as the node's audit tells."""
    audit = read_rows(node, "audit.parquet", ["url", "language", "num_words", "decision"])
    if not audit.num_rows or "decision" not in audit.column_names:
        return []
    kept = np.array(audit["decision"].to_pylist()) == "kept"
    read, all_files = len(few_files(node, "audit.parquet")), len(node.checkpoint.files("audit.parquet"))
    note = f"{node.name}, {count(audit.num_rows)} records"
    if read < all_files:
        note += f" of {read} of its {count(all_files)} files"
    figures = []
    if "language" in audit.column_names:
        figures += _languages(audit["language"], kept, note)
    if "num_words" in audit.column_names:
        figures += _lengths(audit["num_words"], kept, note)
    if "url" in audit.column_names:
        figures += _hosts(audit["url"], kept, note)
    return figures


def _languages(column: pa.ChunkedArray, kept: np.ndarray, note: str) -> list[Figure]:
    names = [name if name else None for name in column.to_pylist()]
    return _split_bars("Languages", note, names, kept)


def _hosts(column: pa.ChunkedArray, kept: np.ndarray, note: str) -> list[Figure]:
    hosts = [_host(url) for url in column.to_pylist()]
    return _split_bars("Sites", note, hosts, kept) if len(set(hosts) - {None}) > 1 else []


def _host(url: str | None) -> str | None:
    """What stands between "//" and the next "/", without user and password; a URL of a crawl need not be sound."""
    after = (url or "").partition("://")[2]
    return after.partition("/")[0].rpartition("@")[2].lower() or None


def _split_bars(title: str, note: str, names: list[str | None], kept: np.ndarray) -> list[Figure]:
    """Bars of the most frequent names, kept and dropped apart; the rest together."""
    of_kept, of_dropped = Counter[str](), Counter[str]()
    for name, is_kept in zip(names, kept.tolist(), strict=True):
        if name is not None:
            (of_kept if is_kept else of_dropped)[name] += 1
    both = of_kept + of_dropped
    if not both:
        return []
    ranked = sorted(both, key=lambda name: (-both[name], name))
    groups = [(name, [name]) for name in ranked[:NUM_BARS]]
    if len(ranked) > NUM_BARS:
        groups.append((f"{len(ranked) - NUM_BARS} others", ranked[NUM_BARS:]))
    bars = []
    for label, members in groups:
        good, bad = sum(of_kept[name] for name in members), sum(of_dropped[name] for name in members)
        bars.append(Bar(label, [("kept", good, "a"), ("dropped", bad, "d0")], count(good + bad)))
    return [Figure(title, f"{note}; kept and dropped", bar_chart(bars, title))]


def _lengths(column: pa.ChunkedArray, kept: np.ndarray, note: str) -> list[Figure]:
    words = column.to_numpy()
    known = np.nan_to_num(words.astype(np.float64)) >= 1
    if not known.any():
        return []
    high = float(words[known].max())
    decades = max(1, int(np.ceil(np.log10(high + 1))))
    edges = np.logspace(0, decades, decades * BINS_A_DECADE + 1)
    first = max(0, int(np.searchsorted(edges, words[known].min(), side="right")) - 1)
    last = int(np.searchsorted(edges, high, side="right"))
    edges = edges[first : last + 1]
    layers = [
        Layer(name, np.histogram(words[known & chosen], edges)[0].tolist(), style)
        for name, chosen, style in (("kept", kept, "a"), ("dropped", ~kept, "d0"))
    ]
    layers = [layer for layer in layers if any(layer.values)]
    return [Figure("Lengths", note, histogram(edges.tolist(), layers, "words", "documents", log=True))]


def _perplexities(node: Node) -> list[Figure]:
    """Of all documents that the node scored, by language, with the limits of its buckets."""
    if not (files := node.checkpoint.files("thresholds.json")):
        return []
    limits = json.loads(node.checkpoint.read(files[0]))
    counted = read_table(node, node.checkpoint.file("histogram.parquet", files[0].stage))
    languages, up_to, documents = (counted[name].to_numpy() for name in ("language", "up_to", "documents"))
    totals = {name: int(documents[languages == name].sum()) for name in set(languages.tolist())}
    figures = []
    for language in sorted(totals, key=lambda name: (-totals[name], name))[:NUM_LANGUAGES]:
        chosen = languages == language
        head, middle = limits[language]["head"], limits[language]["middle"]
        chart = _buckets(up_to[chosen], documents[chosen], head, middle)
        bounds = f"head to {head:,.4g}, middle to {middle:,.4g}"
        note = f"{node.name}, {count(totals[language])} documents in {language}; {bounds}"
        figures.append(Figure("Perplexity", note, chart))
    return figures


def _buckets(up_to: np.ndarray, documents: np.ndarray, head: float, middle: float) -> Markup:
    """Documents by perplexity. `up_to` are the upper edges of the narrow bins in which they were counted."""
    low, high = np.log10(up_to.min()), np.log10(up_to.max())
    first, last = int(low * FINE_BINS_A_DECADE) - 1, int(high * FINE_BINS_A_DECADE) + 1
    edges = 10 ** (np.arange(first, last + 1) / FINE_BINS_A_DECADE)
    inside = (up_to <= head, (up_to > head) & (up_to <= middle), up_to > middle)
    layers = [
        Layer(name, np.histogram(up_to[rows], edges, weights=documents[rows])[0].tolist(), style)
        for (name, style), rows in zip(BUCKETS, inside, strict=True)
    ]
    marks = [Mark(head, f"head ends at {head:,.4g}"), Mark(middle, f"middle ends at {middle:,.4g}")]
    return histogram(edges.tolist(), layers, "perplexity", "documents", log=True, marks=marks)
