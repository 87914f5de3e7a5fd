"""eval-sets: what models are measured on, and training data must not hold."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count

NUM_SETS = 6


def headline(manifest: Manifest) -> str:
    sets = int(manifest.metrics["sets"])
    return f"{count(int(manifest.metrics['examples']), 'examples')} in {count(sets, 'set' if sets == 1 else 'sets')}"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    sets = {
        name.removeprefix("examples."): number
        for name, number in manifest.counters.items()
        if name.startswith("examples.")
    }
    most = sorted(sets.items(), key=lambda one: (-one[1], one[0]))[:NUM_SETS]
    rows = [("examples", count(manifest.counters["examples"])), *((name, count(number)) for name, number in most)]
    return rows if len(sets) <= NUM_SETS else [*rows, ("further sets", count(len(sets) - NUM_SETS))]


NODE = NodeTask("eval-sets", "Reads the evaluation sets.", headline, facts)
