"""snapshot: what the crawl is, pinned file by file."""

from configs.base import Spec
from configs.crawl import PinnedDocumentation, SnapshotSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count


def _bytes(manifest: Manifest) -> int:
    return int(manifest.metrics["archive_bytes"])


def headline(manifest: Manifest) -> str:
    return f"{count(int(manifest.metrics['archives']), 'archives')}, {_bytes(manifest) / 1e6:,.1f} MB"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [("size", f"{_bytes(manifest) / 1e6:,.1f} MB"), *((name, count(n)) for name, n in manifest.counters.items())]


def reads(spec: Spec, size: float) -> float:
    """Archives of others stay where they are; only the documentation crawl is made."""
    return size if isinstance(spec, SnapshotSpec) and isinstance(spec.content, PinnedDocumentation) else 0.0


NODE = NodeTask(
    "snapshot",
    "Pins the crawl's files, so that everything after it is a function of them.",
    headline,
    facts,
    reads=reads,
)
