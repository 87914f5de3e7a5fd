"""tokens: the corpus as token ids, with a held-out part."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count


def headline(manifest: Manifest) -> str:
    train, heldout = (manifest.counters.get(f"{split}_num_tokens", 0) for split in ("train", "heldout"))
    return f"{train / 1e6:,.2f}M tokens to train on, {heldout / 1e6:,.2f}M held out"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), count(value)) for name, value in manifest.counters.items()]


NODE = NodeTask(
    "tokens", "Token shards with document boundaries, and a held-out part by document hash.", headline, facts
)
