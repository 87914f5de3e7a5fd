"""report: one page over all nodes of the run."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask


def headline(manifest: Manifest) -> str:
    return f"{sum(file.bytes for file in manifest.outputs) / 1e3:,.0f} KB of HTML"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [("page", file.path) for file in manifest.outputs if file.name.endswith(".html")]


NODE = NodeTask("report", "A self-contained HTML page over all nodes of the run.", headline, facts)
