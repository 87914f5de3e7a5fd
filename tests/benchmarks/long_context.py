"""What a finished long-context node found, as a dated result.

    python -m tests.benchmarks.long_context STORE_URL/nodes/long-context/KEY [--out FILE.json]

The node is that of the recipe `long-context` unless another is named: two models of 1.05M parameters, one with RoPE and
one with ALiBi, trained on sequences of 128 tokens and read in texts of 128, 256 and 512.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from configs.long_context import LABELS
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import open_store
from tests.benchmarks.harness import RESULTS, commit, machine


def row_of(cell: dict[str, Any]) -> dict[str, Any]:
    """One model by one method at one length."""
    broken = None if cell["breaks"] is None else cell["curve"][cell["breaks"]]
    return {
        "model": cell["model"],
        "method": LABELS[cell["method"]],
        "length": cell["length"],
        "nats": cell["loss"]["value"],
        "nats_95": [cell["loss"]["low"], cell["loss"]["high"]],
        "worse_at_end": cell["end_excess"]["value"],
        "worse_at_end_95": [cell["end_excess"]["low"], cell["end_excess"]["high"]],
        "breaks_at": broken and [broken["begin"] + 1, broken["end"]],
        "passkey": cell["passkey"],
        "worse_by_position": [stretch["excess"]["value"] for stretch in cell["curve"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of the node")
    parser.add_argument("--out", type=Path, default=RESULTS / f"long-context-{datetime.date.today():%Y%m%d}.json")
    options = parser.parse_args()
    root, _, key = options.checkpoint.rstrip("/").partition("/nodes/long-context/")
    node = Checkpoint.open(open_store(root), "long-context", key)
    found = json.loads(node.read(node.file("comparison.json")))
    models = {
        slot: Checkpoint.open(node.store, upstream.node, upstream.key).manifest
        for slot, upstream in node.manifest.inputs.items()
        if slot.startswith("model")
    }
    rows = [row_of(cell) for cell in found["cells"]]
    content = {
        "commit": commit(),
        "machine": machine(),
        "seconds": node.manifest.seconds,
        "cpu_seconds": node.manifest.cpu_seconds,
        "models": {
            slot: {"model": manifest.payload["spec"]["model"], "seconds": manifest.seconds, **manifest.metrics}
            for slot, manifest in models.items()
        },
        **{name: found[name] for name in ("training_length", "margin", "chance", "texts")},
        "rows": rows,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print(f"{row['model']:8} {row['method']:12} {row['length']:6} {row['nats']:.3f} {row['worse_at_end']:+.3f}")


if __name__ == "__main__":
    main()
