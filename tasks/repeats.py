"""repeats: text that stands in earlier documents is cut out."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks import funnel
from tasks.node import NodeTask, count, share

PREFIX = "words_removed."


def _removed(manifest: Manifest) -> dict[str, int]:
    return {name.removeprefix(PREFIX): value for name, value in manifest.counters.items() if name.startswith(PREFIX)}


def headline(manifest: Manifest) -> str:
    removed, entered = sum(_removed(manifest).values()), manifest.counters.get("words_in", 0)
    return f"{funnel.headline(manifest)}, {share(removed, entered)} of words cut"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    entered = manifest.counters.get("words_in", 0)
    rows = [("documents cut", count(manifest.counters.get("documents_changed", 0))), ("words in", count(entered))]
    rows += [
        (f"words cut: {rule}", f"{count(number)} ({share(number, entered)})")
        for rule, number in _removed(manifest).items()
    ]
    return [*funnel.facts(manifest), *rows]


NODE = NodeTask(
    "repeats",
    "Cuts out lines, paragraphs and word sequences that earlier documents have.",
    headline,
    facts,
)
