"""How many jobs run at once that compute in their own process: Ray counts its tasks, and not what a driver uses."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from configs.base import Resources
from tasks.failures import Stopped

LOOK_SECONDS = 2.0
"""Between looks at the cluster, which may grow."""


class Admission:
    """Room for the one-process jobs of a run: never more than the cluster holds, but always one."""

    def __init__(self, totals: Callable[[], Mapping[str, float]]):
        self._totals = totals
        self._changed = threading.Condition()
        self._held: list[Resources] = []
        self._queue: list[object] = []

    @contextmanager
    def admitted(self, resources: Resources, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Waits for room, in the order of asking, and holds it.

        More workers than one are Ray's to count, and go through at once.

        Raises:
            Stopped: `cancelled()` became true meanwhile.
        """
        if resources.workers > 1:
            yield
            return
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(resources):
                    if cancelled():
                        raise Stopped("cancelled before its job began")
                    self._changed.wait(LOOK_SECONDS)
                self._held.append(resources)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(resources)
                self._changed.notify_all()

    def _fits(self, resources: Resources) -> bool:
        if not self._held:
            return True
        totals = self._totals()
        if not totals:  # the cluster does not say: it queues by itself
            return True
        cpus = resources.cpus + sum(held.cpus for held in self._held)
        gpus = resources.gpus + sum(held.gpus for held in self._held)
        return cpus <= totals.get("CPU", 0.0) and (not resources.gpus or gpus <= totals.get("GPU", 0.0))
