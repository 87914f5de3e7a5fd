"""What stands first: headline figures, the graph, and one row a node with all that its manifest says."""

import json
import time
from dataclasses import dataclass
from typing import Any

from configs.rates import Rates
from ray_jobs.report.cost import dollars_of
from ray_jobs.report.figures import compact, count, data_size, dollars, duration, figure, share, words
from ray_jobs.report.graph import Box, draw_graph
from ray_jobs.report.nodes import Node, Nodes
from ray_jobs.report.page import Section, Tile

NUM_FACTS = 2
"""Metrics or counters that stand for a node of which nothing more is known."""


def tiles(nodes: Nodes, prices: Rates) -> list[Tile]:
    """What the run came to, as far as it has the nodes for it."""
    shown = []
    funnels = nodes.funnels()
    if funnels:
        entered = max(node.manifest.counters["documents_in"] for node in funnels)
        kept = funnels[-1].manifest.counters.get("documents_kept", 0)
        shown.append(Tile(compact(kept), f"documents kept of {compact(entered)}"))
    for kind, name, label in (
        ("tokens", "train_num_tokens", "tokens to train on"),
        ("pretrain", "parameters", "parameters"),
        ("pretrain", "train_tokens", "tokens trained on"),
        ("pretrain", "loss", "training loss, nats a token"),
        ("evaluate", "bits_per_byte", "bits per byte, held out"),
        ("scaling", "runs", "runs of a scaling study"),
        ("scaling", "size_exponent", "exponent of the best size over compute"),
        ("scaling", "E", "irreducible loss, nats a token"),
    ):
        for node in [node for node in nodes.of_kind(kind) if node.name not in nodes.studied()][-1:]:
            value = {**node.manifest.counters, **node.manifest.metrics}.get(name)
            if isinstance(value, int | float):
                shown.append(Tile(compact(value) if isinstance(value, int) else f"{value:.3f}", label))
    shown.append(Tile(duration(sum(node.manifest.seconds for node in nodes)), "in all nodes, one after another"))
    shown.append(Tile(dollars(sum(dollars_of(node, prices) for node in nodes)), "at list prices"))
    return shown


def graph_section(nodes: Nodes) -> Section:
    groups = nodes.groups()
    group_of = {node.name: name for name, members in groups.items() for node in members}
    seconds = {name: sum(node.manifest.seconds for node in members) for name, members in groups.items()}
    longest = max(seconds.values(), default=0) or 1
    boxes = [
        Box(
            name=name,
            inputs=list(dict.fromkeys(group_of[upstream] for node in members for upstream in node.inputs.values())),
            headline=headline(members[0]) if len(members) == 1 else "runs of a study",
            cost=f"{duration(seconds[name])} · {compact(round(_cpu_seconds(members), 1))} CPU s",
            weight=seconds[name] / longest,
            warn=any(node.manifest.quarantined for node in members),
            title="; ".join(f"{node.name} {node.checkpoint.key[:16]}: {headline(node)}" for node in members),
        )
        for name, members in groups.items()
    ]
    content = {"across": draw_graph(boxes), "down": draw_graph(boxes, downward=True)}
    return Section("graph", "The graph", "graph.html", content)


def _cpu_seconds(nodes: list[Node]) -> float:
    return sum(node.manifest.cpu_seconds for node in nodes)


def headline(node: Node) -> str:
    """A node's result in a few words."""
    counters, metrics = node.manifest.counters, node.manifest.metrics
    known = {**counters, **metrics}
    if "documents_in" in counters:
        kept, entered = counters.get("documents_kept", 0), counters["documents_in"]
        replaced = sum(value for name, value in counters.items() if name.startswith("replaced."))
        if replaced:
            return f"{count(replaced)} replacements in {count(entered)} documents"
        return f"{count(kept)} of {count(entered)} kept ({share(kept, entered)})"
    match node.kind:
        case "snapshot" if "archives" in known:
            size = known.get("archive_bytes", node.output_bytes)
            return f"{figure(known['archives'])} archives, {data_size(float(size))}"
        case "reference" | "labels" if {"texts", "text_bytes"} <= set(known):
            return f"{figure(known['texts'])} texts, {data_size(float(known['text_bytes']))}"
        case "eval-sets" if "examples" in known:
            return f"{figure(known['examples'])} examples in {figure(known['sets'])} sets"
        case "tokenizer" if "vocab_size" in known:
            return f"{figure(known['vocab_size'])} tokens, {figure(known.get('bytes_per_token', '–'))} bytes each"
        case "tokens" if "train_num_tokens" in known:
            heldout = compact(float(known.get("heldout_num_tokens", 0)))
            return f"{compact(float(known['train_num_tokens']))} tokens, {heldout} held out"
        case "pretrain" if {"parameters", "loss"} <= set(known):
            return f"{compact(float(known['parameters']))} parameters, loss {float(known['loss']):.3f}"
        case "evaluate" if "bits_per_byte" in known:
            return f"{float(known['bits_per_byte']):.3f} bits per byte"
        case "long-context" if "finding" in known:
            return str(known["finding"])
        case "scaling" if {"size_exponent", "E"} <= set(known):
            return f"best size ∝ C^{float(known['size_exponent']):.2f}, loss ≥ {float(known['E']):.2f}"
    return ", ".join(
        f"{words(name)} {figure(value)}" for name, value in [*metrics.items(), *counters.items()][:NUM_FACTS]
    )


@dataclass(frozen=True)
class Row:
    """A node in the table."""

    node: Node
    started: str
    cost: float
    notes: list[str]
    spec: str
    resources: str


def table_section(nodes: Nodes, prices: Rates) -> Section:
    rows = [
        Row(
            node=node,
            started=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(node.manifest.started)),
            cost=dollars_of(node, prices),
            notes=notes(node),
            spec=json.dumps(node.spec, indent=2, ensure_ascii=False),
            resources=json.dumps({k: v for k, v in node.manifest.resources.items() if v is not None}, indent=2),
        )
        for node in nodes
    ]
    totals = {
        "seconds": sum(node.manifest.seconds for node in nodes),
        "cpu_seconds": sum(node.manifest.cpu_seconds for node in nodes),
        "gpu_seconds": sum(node.manifest.gpu_seconds for node in nodes),
        "bytes": sum(node.output_bytes for node in nodes),
        "cost": sum(row.cost for row in rows),
    }
    return Section(
        "nodes", "Nodes and what they took", "nodes.html", {"rows": rows, "totals": totals, "prices": prices}
    )


def notes(node: Node) -> list[str]:
    """What a reader should know before trusting the node's digest."""
    manifest = node.manifest
    found = [f"shard {gone.shard} of {gone.stage} was given up: {gone.reason}" for gone in manifest.quarantined]
    volatile = sorted({file.name for file in manifest.outputs if file.volatile})
    if volatile:
        found.append(f"{', '.join(volatile)} hold times or rates, so the content digest leaves them out")
    if manifest.gpu_seconds:
        found.append("computed on GPUs, whose order of sums may differ from run to run: so may the digest")
    if manifest.code.git_revision is None:
        found.append("no git revision was known: the code is identified by its digest alone")
    return found


def other_section(node: Node) -> Section:
    """Counters and metrics of a node of a kind that no other section knows."""
    return Section(f"node-{node.name}", node.name, "other.html", {"node": node, "facts": facts(node)}, (node.name,))


def facts(node: Node, leave_out: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """All metrics and counters, named for a reader. A name that is both is shown once."""
    known: dict[str, Any] = {**node.manifest.metrics, **node.manifest.counters, **node.manifest.metrics}
    return [(words(name), figure(value)) for name, value in known.items() if not name.startswith(leave_out or "\0")]
