"""Where the run's last result comes from, back to the pinned files of the crawl, and what that took."""

import hashlib
from dataclasses import dataclass

from configs.rates import Rates
from ray_jobs.checkpoint.keys import canonical_json
from ray_jobs.report.cost import dollars_of
from ray_jobs.report.figures import count, data_size
from ray_jobs.report.nodes import Node, Nodes, spread
from ray_jobs.report.overview import headline
from ray_jobs.report.page import Section

NUM_URLS = 3


@dataclass(frozen=True)
class Pinned:
    """What a snapshot fixes."""

    node: Node
    about: str
    digest: str
    """sha256 of the pinned listing."""
    examples: list[str]


@dataclass(frozen=True)
class Lineage:
    result: Node
    steps: list[tuple[Node, str]]
    """The result, then what it was computed from, each with its headline."""
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    cost: float


def lineage_section(nodes: Nodes, prices: Rates) -> Section | None:
    studied = nodes.studied()
    results = [node for node in nodes.of_kind("pretrain") if node.name not in studied] or list(nodes)[-1:]
    if not results:
        return None
    pinned = [pinned_of(node) for node in nodes if "content" in node.spec and not node.manifest.inputs]
    content = {"lineages": [lineage_of(nodes, node, prices) for node in results], "pinned": pinned}
    return Section("lineage", "Lineage", "lineage.html", content, tuple(source.node.name for source in pinned))


def lineage_of(nodes: Nodes, result: Node, prices: Rates) -> Lineage:
    chain = [result, *reversed(nodes.ancestors(result))]
    return Lineage(
        result,
        [(node, headline(node)) for node in chain],
        sum(node.manifest.seconds for node in chain),
        sum(node.manifest.cpu_seconds for node in chain),
        sum(node.manifest.gpu_seconds for node in chain),
        sum(dollars_of(node, prices) for node in chain),
    )


def pinned_of(node: Node) -> Pinned:
    content = node.spec["content"]
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    name = node.spec.get("crawl", node.name)
    files = content.get("files")
    if files is not None:
        total = sum(file.get("size", 0) for file in files)
        about = (
            f"{name}: {count(len(files))} files, {data_size(total)}, each pinned by its size and its etag or checksum"
        )
        return Pinned(node, about, digest, [file["url"] for file in spread(files, NUM_URLS)])
    versions = ", ".join(f"{package} {version}" for package, version in sorted(content.get("versions", {}).items()))
    examples = [f"a function of the versions of {versions}"] if versions else []
    made = node.checkpoint.files("crawl.warc.gz")
    if not made:
        return Pinned(node, f"{name}: {headline(node)}, of what is installed here", digest, examples)
    pages = node.manifest.counters.get("pages", sum(file.rows for file in made))
    about = f"{name}: {count(pages)} pages in {count(len(made))} archives made here ({data_size(node.output_bytes)})"
    return Pinned(node, about, digest, examples)
