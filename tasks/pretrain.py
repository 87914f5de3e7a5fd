"""pretrain: a model trained from scratch."""

from configs.base import Spec
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics


def headline(manifest: Manifest) -> str:
    metrics = manifest.metrics
    return f"{float(metrics.get('parameters', 0)) / 1e6:,.2f}M parameters, loss {float(metrics.get('loss', 0)):.3f}"


def flops(spec: Spec) -> float:
    """6 operations a parameter and token; the embedding is left out, the vocabulary being another node's."""
    assert isinstance(spec, PretrainSpec)
    model = spec.model
    attention = 2 * model.hidden * model.head_width * (model.heads + model.num_kv_heads)
    parameters = model.layers * (attention + 3 * model.hidden * model.intermediate)
    attended = 2 * model.layers * model.heads * model.head_width * spec.sequence_length
    return 6.0 * (parameters + attended) * spec.steps * spec.global_batch * spec.sequence_length


NODE = NodeTask(
    "pretrain",
    "A decoder trained under FSDP2, resumable from its last step's checkpoint.",
    headline,
    all_metrics,
    flops,
)
