"""dedup: exact and near-duplicates of earlier documents are dropped."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks import funnel
from tasks.node import NodeTask, count


def headline(manifest: Manifest) -> str:
    alarms = manifest.counters.get("sources_over_loss", 0)
    return funnel.headline(manifest) + (f", {count(alarms)} sources nearly emptied" if alarms else "")


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    sources, alarms = (manifest.counters.get(name, 0) for name in ("sources", "sources_over_loss"))
    return [
        *funnel.facts(manifest),
        ("earlier crawls", str(manifest.metrics.get("earlier_crawls", 0))),
        ("sources that lost nearly all", f"{count(alarms)} of {count(sources)}"),
    ]


NODE = NodeTask(
    "dedup",
    "Drops documents whose text, URL or MinHash is that of an earlier kept one, in this crawl or those before it.",
    headline,
    facts,
)
