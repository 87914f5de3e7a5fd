"""What a node's `run` writes through: fan-out, single shards, metrics and progress."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from configs.base import Resources
from ray_jobs.checkpoint.checkpoint import read_checked
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Quarantined
from ray_jobs.checkpoint.shards import OutputFile, Receipt, ShardOutput
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import Executor, RayExecutor
from ray_jobs.cluster.fan_out import (
    Limits,
    Stage,
    StageResult,
    fan_out,
    publish,
    read_receipt,
    read_receipts,
    write_shard,
)

C = TypeVar("C")

FLUSH_SECONDS = 3.0
CHUNK_LINES = 2000


class MetricsLog:
    """JSON lines under attempts/<id>/, in chunks: an object store cannot append. One writer an attempt."""

    def __init__(self, store: Store, path: NodePath, attempt: str):
        self._store, self._path, self._attempt = store, path, attempt
        self._lines: list[str] = []
        self._chunk = 0
        self._flushed = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        self._lines.append(json.dumps(record))
        if len(self._lines) >= CHUNK_LINES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._flushed = time.monotonic()
        if self._lines:
            name = f"metrics-{self._chunk:04d}.jsonl"
            self._store.put(self._path.attempt(self._attempt, name), ("\n".join(self._lines) + "\n").encode())
        if len(self._lines) >= CHUNK_LINES:
            self._lines, self._chunk = [], self._chunk + 1


class NodeOutput:
    """One attempt's way to publish a node's shards. Made by the runner, one a job."""

    def __init__(
        self,
        store: Store,
        path: NodePath,
        attempt: str,
        resources: Resources,
        executor: Callable[[], Executor],
        max_quarantined_share: float = 0.0,
        show: Callable[[dict[str, Any]], None] = lambda progress: None,
    ):
        self.store, self.node_path, self.attempt = store, path, attempt
        self.path = path.root
        self.resources = resources
        self.receipts: dict[tuple[str, int], Receipt] = {}
        self.quarantined: list[Quarantined] = []
        self._new_executor = executor
        self._executor: Executor | None = None
        self._limits = Limits(resources.shard_retries, resources.infrastructure_retries, max_quarantined_share)
        self._show = show
        self._metrics = MetricsLog(store, path, attempt)
        self._began: dict[str, tuple[float, float]] = {}

    def fan_out(
        self,
        stage: str,
        shards: Sequence[dict[str, Any]],
        process: Callable[[dict[str, Any], C], ShardOutput],
        context: C,
        may_lose: bool = True,
    ) -> list[Receipt]:
        """Runs `process(shard, context)` for every shard that is not done yet, in parallel.

        Args:
            stage: names the files and receipts.
            shards: each shard's inputs, JSON-able, whatever the number of workers.
            process: a module's function without side effects.
            context: what all shards share; picklable.
            may_lose: whether the spec's share of shards may be quarantined; otherwise the first that fails for good
                fails the node, and the next run tries it again.

        Returns:
            Receipts in the order of shards, without those that are quarantined within the spec's limit.
        """
        result = self._fan_out(stage, shards, process, context, self._limits.max_quarantined_share if may_lose else 0.0)
        self.quarantined += result.quarantined
        return result.receipts

    def fan_out_apart(
        self,
        stage: str,
        shards: Sequence[dict[str, Any]],
        parts: Callable[[dict[str, Any]], Sequence[dict[str, Any]]],
        process: Callable[[dict[str, Any], C], ShardOutput],
        context: C,
    ) -> list[Receipt]:
        """As `fan_out`, of shards that hold several inputs: one that fails for good is taken apart, and costs those of
        its parts alone that fail by themselves as well.

        Args:
            parts: the shards that a shard is taken apart into, such as one for each of its input files; they are
                computed in a stage of their own, named `apart(stage)`. The spec's share is that of all parts. As many
                shards may be taken apart as parts may be lost: each has at least one that fails.

        Returns:
            Receipts in the order of shards, then those of parts. Quarantined are parts alone.
        """
        may_lose = int(self._limits.max_quarantined_share * sum(len(parts(shard)) for shard in shards) + 1e-9)
        # Half a shard more, so that the share of them is exact however it is rounded.
        whole = self._fan_out(stage, shards, process, context, (may_lose + 0.5) / max(1, len(shards)))
        if not whole.quarantined:
            return whole.receipts
        again = [part for lost in whole.quarantined for part in parts(shards[lost.shard])]
        alone = self._fan_out(apart(stage), again, process, context, (may_lose + 0.5) / len(again))
        self.quarantined += alone.quarantined
        return whole.receipts + alone.receipts

    def _fan_out(
        self,
        stage: str,
        shards: Sequence[dict[str, Any]],
        process: Callable[[dict[str, Any], C], ShardOutput],
        context: C,
        max_quarantined_share: float,
    ) -> StageResult:
        if self._executor is None:
            self._executor = self._new_executor()
        result = fan_out(
            Stage(self.store, self.node_path, self.attempt, stage, process, context),
            shards,
            self._executor,
            self.resources.shards_per_task,
            replace(self._limits, max_quarantined_share=max_quarantined_share),
            lambda done, total: self.progress(done, total, "shards", stage=stage),
            self.record,
        )
        self.receipts.update({(receipt.stage, receipt.shard): receipt for receipt in result.receipts})
        return result

    def write(self, stage: str, output: ShardOutput, shard: int = 0) -> Receipt:
        """Publishes one shard that this process computed; the standing receipt, where another was first."""
        described = Stage(self.store, self.node_path, self.attempt, stage, _not_called, None)
        seconds = time.monotonic() - self._began.pop(stage, (time.monotonic(), 0.0))[0]
        receipt = publish(self.store, self.node_path, [write_shard(described, shard, output, seconds, 0.0)])[0]
        self.receipts[stage, shard] = receipt
        return receipt

    def standing(self, stage: str, shard: int = 0) -> Receipt | None:
        """The shard's receipt, if it is done: a resumed job skips that work."""
        self._began.setdefault(stage, (time.monotonic(), 0.0))
        receipt = read_receipt(self.store, self.node_path, stage, shard)
        if receipt is None:
            return None
        if any(self.store.size(file.path) != file.bytes for file in receipt.files):
            self.store.delete([self.node_path.receipt(stage, shard)])
            return None
        self.receipts[stage, shard] = receipt
        return receipt

    def read(self, file: OutputFile) -> bytes:
        """A file of an earlier stage of this node, its checksum verified."""
        return read_checked(self.store, file)

    def receipts_of(self, stage: str) -> list[Receipt]:
        """All receipts of a stage, as they stand in the store."""
        return read_receipts(self.store, self.node_path, stage)

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Adds one JSON line to the attempt's metrics; a killed attempt keeps all but its last seconds."""
        self._metrics.add(record)

    def progress(self, done: float, total: float, unit: str, **extra: Any) -> None:
        """What the terminal and Prefect show while the node works."""
        self._show({"done": done, "total": total, "unit": unit, **extra})

    def record(self, name: str, content: dict[str, Any]) -> None:
        """Keeps a fact about this attempt (an event, a failure) under attempts/<id>/."""
        self.store.put(self.node_path.attempt(self.attempt, name), json.dumps(content, indent=1, default=str).encode())

    def in_own_process(self, receipt: Receipt) -> bool:
        """Whether this very process computed the shard, so that its own CPU time holds the shard's."""
        return receipt.attempt == self.attempt and not isinstance(self._executor, RayExecutor)

    def flush(self) -> None:
        self._metrics.flush()


def apart(stage: str) -> str:
    """The stage of what is left of another's shards."""
    return f"{stage}-apart"


def _not_called(shard: dict[str, Any], context: object) -> ShardOutput:
    raise AssertionError("a shard written by the job itself has no function")
