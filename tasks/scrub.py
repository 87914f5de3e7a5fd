"""scrub: no text of the evaluation sets, and typed placeholders for personal data."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks import funnel
from tasks.node import NodeTask, count


def _replaced(manifest: Manifest) -> dict[str, int]:
    return {
        name.removeprefix("replaced."): value
        for name, value in manifest.counters.items()
        if name.startswith("replaced.")
    }


def headline(manifest: Manifest) -> str:
    return f"{funnel.headline(manifest)}, {count(sum(_replaced(manifest).values()), 'replacements')}"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    replaced = [(f"replaced: {kind}", count(number)) for kind, number in _replaced(manifest).items()]
    return [*funnel.facts(manifest), *replaced]


NODE = NodeTask(
    "scrub",
    "Drops documents that hold text of the evaluation sets; replaces e-mail and IP addresses, numbers and secret keys.",
    headline,
    facts,
)
