"""evaluate: the model on held-out text, beside n-gram models of the same tokens."""

from configs.base import Spec
from configs.evaluate import EvaluateSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask


def headline(manifest: Manifest) -> str:
    bits = manifest.metrics.get("bits_per_byte")
    return f"{float(bits):.3f} bits a byte" if bits is not None else "evaluated"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in manifest.metrics.items()
    ]


# A scored document with its share of the tokens that the baselines are counted on.
BYTES_A_DOCUMENT = 50e3


def reads(spec: Spec, size: float) -> float:
    """No more than the documents that are scored."""
    assert isinstance(spec, EvaluateSpec)
    return min(size, spec.max_documents * BYTES_A_DOCUMENT)


NODE = NodeTask(
    "evaluate", "Held-out perplexity and bits per byte, and what the model writes.", headline, facts, reads=reads
)
