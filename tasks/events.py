"""What happens to nodes while a flow runs, for whoever shows it (the terminal) in the same process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.checkpoint.manifest import Manifest


@dataclass(frozen=True)
class NodeEvent:
    node: str
    """Its name in the recipe."""
    state: str
    """HIT, RUNNING, DONE, FAILED, SKIPPED or CANCELLED."""
    message: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    """done, total, unit and what else the node reports."""
    manifest: Manifest | None = None


_listeners: list[Callable[[NodeEvent], None]] = []


def publish(event: NodeEvent) -> None:
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Callable[[NodeEvent], None]) -> Iterator[None]:
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
