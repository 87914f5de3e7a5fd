"""scaling: the law of a study's losses."""

from configs.base import Spec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics, count


def headline(manifest: Manifest) -> str:
    metrics = manifest.metrics
    runs = count(manifest.counters.get("runs", 0), "runs")
    found = f"best size ∝ C^{float(metrics.get('size_exponent', 0)):.2f}"
    if "size_exponent_low" in metrics:
        found += f" ({float(metrics['size_exponent_low']):.2f}–{float(metrics['size_exponent_high']):.2f})"
    return f"{found}, loss ≥ {float(metrics.get('E', 0)):.2f}, from {runs}"


def reads(spec: Spec, size: float) -> float:
    """A few kilobytes of each run's results, whatever its model weighs."""
    return 0.0


NODE = NodeTask(
    "scaling", "L(N, D) fitted to a grid of runs, and the best sizes by it.", headline, all_metrics, reads=reads
)
