"""reference: a corpus of good text from outside."""

from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, count


def headline(manifest: Manifest) -> str:
    return f"{count(int(manifest.metrics['texts']), 'texts')}, {float(manifest.metrics['text_mb']):,.1f} MB"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    counters = manifest.counters
    rows = [
        ("rows", count(counters["rows"])),
        ("texts", count(counters["texts"])),
        ("rows without text", count(counters["without_text"])),
        ("size of the text", f"{counters['text_bytes'] / 1e6:,.1f} MB"),
    ]
    labels = {name: number for name, number in counters.items() if name.startswith("label.")}
    most = sorted(labels.items(), key=lambda label: (-label[1], label[0]))[:4]
    return rows + [(name.replace(".", ": ", 1), count(number)) for name, number in most]


NODE = NodeTask(
    "reference",
    "Reads a corpus of good text: what crawled text is measured by.",
    headline,
    facts,
)
