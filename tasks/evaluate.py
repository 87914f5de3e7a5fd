"""evaluate: the model on held-out text, beside n-gram models of the same tokens."""

from configs.base import Spec
from configs.evaluate import EvaluateSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics


def headline(manifest: Manifest) -> str:
    bits = manifest.metrics.get("bits_per_byte")
    return f"{float(bits):.3f} bits a byte" if bits is not None else "evaluated"


# A scored document with its share of the tokens that the baselines are counted on.
BYTES_A_DOCUMENT = 50e3


def reads(spec: Spec, size: float) -> float:
    """No more than the documents that are scored."""
    assert isinstance(spec, EvaluateSpec)
    return min(size, spec.max_documents * BYTES_A_DOCUMENT)


NODE = NodeTask(
    "evaluate", "Held-out perplexity and bits per byte, and what the model writes.", headline, all_metrics, reads=reads
)
