"""semantic: documents that say what an earlier one says, in other words, are dropped."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks import funnel
from tasks.node import NodeTask, count


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    clusters, largest = (int(manifest.metrics.get(name, 0)) for name in ("clusters", "largest_cluster"))
    return [*funnel.facts(manifest), ("clusters", count(clusters)), ("documents in the largest", count(largest))]


NODE = NodeTask(
    "semantic",
    "Drops documents whose sentence embedding is close to that of an earlier kept one.",
    funnel.headline,
    facts,
)
