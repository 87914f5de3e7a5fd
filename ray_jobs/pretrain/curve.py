"""The loss curve that leads to a training checkpoint. Free of torch."""

from typing import Any

from ray_jobs.checkpoint.curve import Segment, lines_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store
from ray_jobs.pretrain.steps import StepReceipt


def segments_of(receipt: StepReceipt) -> tuple[Segment, ...]:
    """Which sessions wrote which part of the curve up to this checkpoint."""
    return tuple(Segment(**segment) for segment in receipt.state["segments"])


def read_curve(store: Store, path: NodePath, receipt: StepReceipt) -> list[dict[str, Any]]:
    """The lines that lead to this checkpoint, from step 0, in order."""
    return lines_of(store, path, segments_of(receipt))
