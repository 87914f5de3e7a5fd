"""The report node: one self-contained HTML page over all nodes of a run, and its figures as JSON.

    report   one shard: index.html, which shows times and so stays out of the content digest, and summary.json

A section stands where there are nodes for it. A node of a kind that no section knows gets one of its own with all its
counters and metrics.
"""

import json
from typing import Any

from configs.base import Resources
from configs.rates import read_rates
from configs.report import ReportSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.report.classifiers import classifiers_section
from ray_jobs.report.contamination import contamination_section
from ray_jobs.report.documents import documents_section
from ray_jobs.report.duplicates import duplicates_section
from ray_jobs.report.evaluation import evaluation_section
from ray_jobs.report.lineage import lineage_section
from ray_jobs.report.long_context import long_context_section
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.overview import graph_section, headline, other_section, table_section, tiles
from ray_jobs.report.page import Page, Section, render
from ray_jobs.report.personal import personal_section
from ray_jobs.report.samples import samples_section
from ray_jobs.report.scaling import scaling_section
from ray_jobs.report.tokens import tokens_section
from ray_jobs.report.training import training_section

STAGE = "report"


def run(spec: ReportSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Writes the page over `inputs`, which are the recipe's other nodes by name."""
    if output.standing(STAGE) is None:
        nodes = Nodes(inputs)
        page = render(page_of(nodes, spec))
        summary = json.dumps(summary_of(nodes), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        files = {"index.html": File(page, volatile=True), "summary.json": File(summary.encode())}
        output.write(STAGE, ShardOutput(files, {"nodes": len(nodes)}))
    return Outcome((STAGE,))


def page_of(nodes: Nodes, spec: ReportSpec) -> Page:
    prices = read_rates()
    known = [
        graph_section(nodes),
        scaling_section(nodes),
        evaluation_section(nodes, spec.num_samples),
        long_context_section(nodes),
        training_section(nodes),
        tokens_section(nodes),
        documents_section(nodes),
        samples_section(nodes, spec.num_samples),
        duplicates_section(nodes, spec.num_samples),
        classifiers_section(nodes),
        personal_section(nodes, spec.num_samples),
        contamination_section(nodes, spec.num_samples),
        lineage_section(nodes, prices),
        table_section(nodes, prices),
    ]
    sections: list[Section] = [section for section in known if section is not None]
    shown = {name for section in sections for name in section.nodes}
    others = [other_section(node) for node in nodes if node.name not in shown]
    return Page(
        title=title_of(nodes),
        subtitle=" → ".join(nodes.groups()),
        tiles=tiles(nodes, prices),
        sections=[*sections[:-2], *others, *sections[-2:]],
    )


def title_of(nodes: Nodes) -> str:
    """What the run came to: its model and that model's score, or the last node's result."""
    studied = nodes.studied()
    results = [
        node
        for kind in ("pretrain", "evaluate", "scaling")
        for node in [node for node in nodes.of_kind(kind) if node.name not in studied][-1:]
    ] or list(nodes)[-1:]
    return "; ".join(headline(node) or node.name for node in results) or "A run without nodes"


def summary_of(nodes: Nodes) -> dict[str, Any]:
    """What does not depend on time or machine: for each node its key, content digest and counters."""
    return {
        "nodes": {
            node.name: {
                "kind": node.kind,
                "key": node.checkpoint.key,
                "content_digest": node.manifest.content_digest,
                "counters": node.manifest.counters,
                "quarantined": len(node.manifest.quarantined),
            }
            for node in nodes
        }
    }
