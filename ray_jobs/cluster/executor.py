"""Where batches of shards run: in this process, or as Ray tasks."""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from configs.base import Resources


@dataclass(frozen=True)
class Finished:
    """A batch came to an end: with its result, or because its worker was lost."""

    ticket: int
    result: Any = None
    lost: str | None = None
    """Why the worker is gone."""
    blameless: bool = False
    """The worker was lost with its machine, so that nothing it worked on can be the cause."""


class Executor(ABC):
    """Runs `function(context, batch)`; up to `slots` batches may be submitted at once."""

    workers: int
    """Batches that are meant to run at once."""
    slots: int
    """Batches that may be submitted at once where they are short, so that no worker waits for the driver."""

    @abstractmethod
    def start(self, function: Callable[[Any, Any], Any], context: Any) -> None:
        """Makes `function` and `context` known to the workers, once a stage."""

    @abstractmethod
    def submit(self, ticket: int, batch: Any) -> None: ...

    @abstractmethod
    def wait(self, seconds: float) -> list[Finished]:
        """Batches that ended within `seconds`."""

    @abstractmethod
    def cancel(self) -> None:
        """Stops what still runs."""


class InlineExecutor(Executor):
    """Works through batches in this process, one after another."""

    workers = slots = 1

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Any]] = deque()

    def start(self, function: Callable[[Any, Any], Any], context: Any) -> None:
        self._function, self._context = function, context

    def submit(self, ticket: int, batch: Any) -> None:
        self._waiting.append((ticket, batch))

    def wait(self, seconds: float) -> list[Finished]:
        ticket, batch = self._waiting.popleft()
        return [Finished(ticket, self._function(self._context, batch))]

    def cancel(self) -> None:
        self._waiting.clear()


class RayExecutor(Executor):
    """Ray tasks."""

    def __init__(self, resources: Resources):
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=True, configure_logging=True, logging_level=logging.WARNING)
        self._ray = ray
        self._resources = resources
        self.workers = resources.workers
        # More than 64 in flight only lengthens the driver's queue on one head; large groups need two a worker.
        self.slots = max(2 * resources.workers, min(16, 8 * resources.workers))
        self._running: dict[Any, int] = {}

    def start(self, function: Callable[[Any, Any], Any], context: Any) -> None:
        memory = self._resources.memory_gb
        self._context = self._ray.put(context)
        options: dict[str, Any] = {} if memory is None else {"memory": int(memory * 2**30)}
        self._task = self._ray.remote(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            # Lost workers are retried by the fan-out, on its own budget and shard by shard.
            max_retries=0,
            scheduling_strategy="SPREAD",
            **options,
        )(function)

    def submit(self, ticket: int, batch: Any) -> None:
        self._running[self._task.remote(self._context, batch)] = ticket

    def wait(self, seconds: float) -> list[Finished]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:  # whatever else is ready costs no second wait
            others = [ref for ref in self._running if ref is not ready[0]]
            ready += self._ray.wait(others, num_returns=len(others), timeout=0)[0] if others else []
        finished = []
        for ref in ready:
            ticket = self._running.pop(ref)
            try:
                finished.append(Finished(ticket, self._ray.get(ref)))
            except (self._ray.exceptions.RayTaskError, self._ray.exceptions.RaySystemError):
                raise  # `function` catches what its shards raise: this is our own defect
            except self._ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                suspects = (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError)
                finished.append(Finished(ticket, lost=reason, blameless=not isinstance(error, suspects)))
        return finished

    def cancel(self) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()
