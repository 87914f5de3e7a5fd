"""long-context: models on texts longer than those that they were trained on."""

from configs.base import Spec
from configs.long_context import LongContextSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics


def headline(manifest: Manifest) -> str:
    return str(manifest.metrics.get("finding", "measured"))


# A token of a held-out document as stored, with its share of the models that read it.
BYTES_A_TOKEN = 30


def reads(spec: Spec, size: float) -> float:
    """No more than the texts, once for each method and length."""
    assert isinstance(spec, LongContextSpec)
    length = max(spec.lengths) * (spec.training_length or 4096)
    return min(size, spec.max_texts * length * BYTES_A_TOKEN * len(spec.methods))


NODE = NodeTask(
    "long-context",
    "The loss by position, and a passkey, at some multiples of the training length, by each method.",
    headline,
    lambda manifest: [row for row in all_metrics(manifest) if row[0].endswith("breaks at")],
    reads=reads,
)
