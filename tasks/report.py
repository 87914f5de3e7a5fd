"""report: one page over all nodes of the run."""

from configs.base import Spec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count

# ray_jobs/report/nodes.py reads at most 48 MB of each kind of file, of which there are a few.
MOST_READ_BYTES = 200e6


def headline(manifest: Manifest) -> str:
    page = sum(file.bytes for file in manifest.outputs if file.name == "index.html")
    return f"{count(page / 1e3)} KB of HTML over {count(manifest.counters.get('nodes', 0), 'nodes')}"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    nodes = [("nodes", count(manifest.counters.get("nodes", 0)))]
    return nodes + [("page" if file.name.endswith(".html") else file.name, file.path) for file in manifest.outputs]


def reads(spec: Spec, size: float) -> float:
    """A bounded part of each kind of file, however large the run."""
    return min(size, MOST_READ_BYTES)


NODE = NodeTask("report", "A self-contained HTML page over all nodes of the run.", headline, facts, reads=reads)
