"""What every node that drops documents shows: how many entered, were kept, and why the others were not."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import count, share

NUM_REASONS = 5


def headline(manifest: Manifest) -> str:
    entered, kept = manifest.counters.get("documents_in", 0), manifest.counters.get("documents_kept", 0)
    return f"{count(kept)} of {count(entered, 'documents')} kept"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    entered, kept = manifest.counters.get("documents_in", 0), manifest.counters.get("documents_kept", 0)
    dropped = {
        name.removeprefix("dropped."): value for name, value in manifest.counters.items() if name.startswith("dropped.")
    }
    most = sorted(dropped.items(), key=lambda reason: (-reason[1], reason[0]))[:NUM_REASONS]
    rows = [("documents in", count(entered)), ("kept", f"{count(kept)} ({share(kept, entered)})")]
    rows += [(f"dropped: {reason}", f"{count(number)} ({share(number, entered)})") for reason, number in most if number]
    if manifest.quarantined:
        rows.append(("shards given up", count(len(manifest.quarantined))))
    return rows
