"""quality: each document by perplexity, by classifiers and by word lists, and what that decides."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks import funnel
from tasks.node import NodeTask, count, figure, share

BUCKETS = ("head", "middle", "tail")


def headline(manifest: Manifest) -> str:
    scored = manifest.counters.get("documents_scored", 0)
    return f"{funnel.headline(manifest)}, {count(scored)} scored"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    counters = manifest.counters
    scored = counters.get("documents_scored", 0)
    rows = [*funnel.facts(manifest), ("scored", f"{count(scored)} ({share(scored, counters['documents_in'])})")]
    rows += [
        (f"in {bucket}", count(counters[f"bucket.{bucket}"])) for bucket in BUCKETS if f"bucket.{bucket}" in counters
    ]
    named = ("documents_classified", "documents_with_toxic_words")
    rows += [(name.replace("_", " "), count(counters[name])) for name in named if counters.get(name)]
    chosen = {name: value for name, value in manifest.metrics.items() if name.endswith("_threshold")}
    rows += [(name.replace("_", " "), figure(value)) for name, value in chosen.items()]
    limits = {name: value for name, value in manifest.metrics.items() if name.endswith(("_head", "_middle"))}
    return [*rows, *((f"perplexity, end of {name.replace('_', ' ')}", figure(value)) for name, value in limits.items())]


NODE = NodeTask(
    "quality",
    "Scores documents by perplexity, which sorts them into head, middle and tail, by classifiers and by word lists.",
    headline,
    facts,
)
