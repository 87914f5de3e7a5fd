"""The loss curve of a node, put together from what each session of its training wrote. Free of torch."""

import json
from dataclasses import dataclass
from typing import Any

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store
from ray_jobs.pretrain.steps import StepReceipt


@dataclass(frozen=True)
class Segment:
    """A stretch of the curve: the lines with first < step <= last, which one session wrote."""

    session: str
    first: int
    last: int


def segments_of(receipt: StepReceipt) -> tuple[Segment, ...]:
    """Which sessions wrote which part of the curve up to this checkpoint."""
    return tuple(Segment(**segment) for segment in receipt.state["segments"])


def read_curve(store: Store, path: NodePath, receipt: StepReceipt) -> list[dict[str, Any]]:
    """The lines that lead to this checkpoint, from step 0, in order.

    A session's last lines may belong to steps that were lost with it and taken again by the next: each step is read
    from the session whose work it is.
    """
    lines: dict[int, dict[str, Any]] = {}
    for segment in segments_of(receipt):
        prefix = path.attempt(segment.session, "")
        for entry in store.list(prefix):
            if not entry.path.removeprefix(prefix).startswith("metrics-"):
                continue
            for record in map(json.loads, (store.get(entry.path) or b"").decode().splitlines()):
                if segment.first < record["step"] <= segment.last:
                    lines[record["step"]] = record  # of a step taken again after a spike, the last counts
    return [lines[step] for step in sorted(lines)]
