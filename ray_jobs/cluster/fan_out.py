"""Fan-out: many short shards over few tasks, each shard with a receipt of its own.

The driver hands out batches of shards; a worker computes each, writes its files under names of this attempt and
publishes its receipt. What is published is never computed again: a killed run goes on with the shards that have no receipt.
"""

import hashlib
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.checkpoint.keys import canonical_json
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Quarantined
from ray_jobs.checkpoint.shards import OutputFile, Receipt, ShardOutput, check_funnel
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import Executor

# Receipts of shards that take milliseconds are published together; a longer shard's receipt never waits.
PUBLISH_SECONDS = 0.2


class NodeFailed(RuntimeError):
    """The node cannot finish; the message says why and what to do."""


class UserError(ValueError):
    """A mistake of whoever wrote the recipe: trying again cannot help."""


@dataclass(frozen=True)
class Stage:
    """What a worker needs to know of the stage it works on."""

    store: Store
    path: NodePath
    attempt: str
    name: str
    process: Callable[[dict[str, Any], Any], ShardOutput]
    context: Any


@dataclass(frozen=True)
class ShardFailure:
    shard: int
    reason: str
    trace: str
    by_user: bool


@dataclass(frozen=True)
class Limits:
    """How much may fail before the node does."""

    shard_retries: int
    infrastructure_retries: int
    max_quarantined_share: float


@dataclass(frozen=True)
class StageResult:
    receipts: list[Receipt]
    quarantined: list[Quarantined]


def fan_out(
    stage: Stage,
    shards: Sequence[dict[str, Any]],
    executor: Executor,
    shards_per_task: int,
    limits: Limits,
    on_progress: Callable[[int, int], None],
    on_failure: Callable[[str, dict[str, Any]], None],
) -> StageResult:
    """Computes every shard that has no receipt yet, and returns all receipts in the order of shards.

    Raises:
        UserError: as raised by the stage's function.
        NodeFailed: more shards are quarantined, or more workers lost, than `limits` allow.
    """
    publish_plan(stage.store, stage.path, stage.name, shards)
    receipts = {receipt.shard: receipt for receipt in read_receipts(stage.store, stage.path, stage.name)}
    todo = [index for index in range(len(shards)) if index not in receipts]
    given_up: dict[int, str] = {}
    if todo:
        _Driver(stage, shards, executor, limits, on_progress, on_failure, receipts, given_up).run(todo, shards_per_task)
    on_progress(len(receipts), len(shards))
    quarantined = [Quarantined(stage=stage.name, shard=shard, reason=given_up[shard]) for shard in sorted(given_up)]
    return StageResult([receipts[shard] for shard in sorted(receipts)], quarantined)


class _Driver:
    """The loop over batches: submits, collects, retries, quarantines."""

    def __init__(
        self,
        stage: Stage,
        shards: Sequence[dict[str, Any]],
        executor: Executor,
        limits: Limits,
        on_progress: Callable[[int, int], None],
        on_failure: Callable[[str, dict[str, Any]], None],
        receipts: dict[int, Receipt],
        given_up: dict[int, str],
    ):
        self.stage, self.shards, self.executor, self.limits = stage, shards, executor, limits
        self.on_progress, self.on_failure = on_progress, on_failure
        self.receipts, self.given_up = receipts, given_up
        self.strikes: dict[int, int] = {}
        self.num_lost = 0

    def run(self, todo: list[int], shards_per_task: int) -> None:
        # Few shards are spread over all slots rather than packed into one task.
        per_task = max(1, min(shards_per_task, len(todo) // self.executor.slots))
        waiting = deque(todo[first : first + per_task] for first in range(0, len(todo), per_task))
        running: dict[int, list[int]] = {}
        ticket = 0
        self.executor.start(work_on, self.stage)
        try:
            while waiting or running:
                while waiting and len(running) < self.executor.slots:
                    batch = waiting.popleft()
                    running[ticket] = batch
                    self.executor.submit(ticket, [(shard, self.shards[shard]) for shard in batch])
                    ticket += 1
                for finished in self.executor.wait(1.0):
                    batch = running.pop(finished.ticket)
                    if finished.lost is not None:
                        waiting.extend(self._after_loss(batch, finished.lost))
                    else:
                        waiting.extend(self._after_result(finished.result))
                self.on_progress(len(self.receipts), len(self.shards))
        except BaseException:
            self.executor.cancel()
            raise

    def _after_result(self, results: list[Receipt | ShardFailure]) -> list[list[int]]:
        again = []
        for result in results:
            if isinstance(result, Receipt):
                self.receipts[result.shard] = result
            elif result.by_user:
                raise UserError(result.reason)
            elif self._strike(result.shard, result.reason, result.trace):
                again.append([result.shard])
        return again

    def _after_loss(self, batch: list[int], reason: str) -> list[list[int]]:
        self.num_lost += 1
        if self.num_lost > self.limits.infrastructure_retries:
            raise NodeFailed(
                f"lost {self.num_lost} workers in stage {self.stage.name} (last: {reason}): look at the nodes' memory and "
                "at preemption, lower resources.workers or raise resources.infrastructure_retries, then run again"
            )
        # Some of the batch may be published. The rest goes on alone, so that a shard that kills its worker is found.
        for shard in batch:
            data = self.stage.store.get(self.stage.path.receipt(self.stage.name, shard))
            if data is not None:
                self.receipts[shard] = Receipt.model_validate_json(data)
        rest = [shard for shard in batch if shard not in self.receipts]
        if len(rest) == 1 and not self._strike(rest[0], f"its worker was lost: {reason}", ""):
            return []
        return [[shard] for shard in rest]

    def _strike(self, shard: int, reason: str, trace: str) -> bool:
        """Counts a failure of the shard; True if it may be tried again."""
        self.strikes[shard] = self.strikes.get(shard, 0) + 1
        self.on_failure(
            f"failures/{self.stage.name}-{shard:05d}-{self.strikes[shard]}.json",
            {"shard": shard, "inputs": self.shards[shard], "reason": reason, "trace": trace},
        )
        if self.strikes[shard] <= self.limits.shard_retries:
            return True
        self.given_up[shard] = reason
        if len(self.given_up) > self.limits.max_quarantined_share * len(self.shards):
            raise NodeFailed(
                f"{len(self.given_up)} of {len(self.shards)} shards of stage {self.stage.name} failed "
                f"{self.strikes[shard]} times each, the last (shard {shard}) with: {reason}. The traces are under "
                f"{self.stage.path.root}/attempts/{self.stage.attempt}/failures/. Mend the cause and run again, or raise "
                "max_quarantined_share to go on without them"
            )
        return False


def publish_plan(store: Store, path: NodePath, stage: str, shards: Sequence[dict[str, Any]]) -> None:
    """Fixes what each shard works on, before the first is computed."""
    if not store.create(path.shards(stage), canonical_json(list(shards)).encode()):
        raise NodeFailed(
            f"stage {stage} was begun with other shards than this code would make: the code changed under the same "
            "version. Raise the node's version (or its generation in the recipe), then run again"
        )


def read_receipts(store: Store, path: NodePath, stage: str) -> list[Receipt]:
    paths = [entry.path for entry in store.list(path.receipts(stage))]
    return [Receipt.model_validate_json(data) for data in store.get_many(paths) if data is not None]


def work_on(stage: Stage, batch: list[tuple[int, dict[str, Any]]]) -> list[Receipt | ShardFailure]:
    """Runs in a worker: computes and publishes the shards of one batch."""
    results: list[Receipt | ShardFailure] = []
    unpublished: list[Receipt] = []
    last_publication = time.monotonic()
    for shard, inputs in batch:
        try:
            unpublished.append(compute_shard(stage, shard, inputs))
        except UserError as error:
            results.append(ShardFailure(shard, str(error), "", by_user=True))
            break
        # Whatever a shard raises is its result here: it is recorded with its trace, retried, then quarantined.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {error}"
            results.append(ShardFailure(shard, reason, traceback.format_exc(), by_user=False))
        if time.monotonic() - last_publication > PUBLISH_SECONDS:
            results += publish(stage.store, stage.path, unpublished)
            unpublished, last_publication = [], time.monotonic()
    return results + publish(stage.store, stage.path, unpublished)


def compute_shard(stage: Stage, shard: int, inputs: dict[str, Any]) -> Receipt:
    began, cpu_began = time.monotonic(), time.process_time()
    output = stage.process(inputs, stage.context)
    return write_shard(stage, shard, output, time.monotonic() - began, time.process_time() - cpu_began)


def write_shard(stage: Stage, shard: int, output: ShardOutput, seconds: float, cpu_seconds: float) -> Receipt:
    """Writes the shard's files; its receipt is returned, not yet published."""
    check_funnel(output.counters, f"{stage.path.node}, stage {stage.name}, shard {shard}")
    files = []
    for name, file in sorted(output.files.items()):
        path = stage.path.data(stage.name, shard, stage.attempt, name)
        stage.store.put(path, file.data)
        files.append(
            OutputFile(
                stage=stage.name,
                shard=shard,
                name=name,
                path=path,
                bytes=len(file.data),
                sha256=hashlib.sha256(file.data).hexdigest(),
                rows=file.rows,
                volatile=file.volatile,
            )
        )
    return Receipt(
        stage=stage.name,
        shard=shard,
        attempt=stage.attempt,
        files=tuple(files),
        counters=dict(sorted(output.counters.items())),
        info=output.info,
        seconds=round(seconds, 4),
        cpu_seconds=round(cpu_seconds, 4),
    )


def publish(store: Store, path: NodePath, receipts: list[Receipt]) -> list[Receipt]:
    """Publishes receipts; where another attempt was first, its receipt is returned in place of ours."""
    if not receipts:
        return []
    records = [(path.receipt(receipt.stage, receipt.shard), receipt.to_json()) for receipt in receipts]
    standing = []
    for receipt, (where, _), won in zip(receipts, records, store.create_many(records), strict=True):
        if won:
            standing.append(receipt)
            continue
        data = store.get(where)
        assert data is not None, f"{where} was there a moment ago"
        standing.append(Receipt.model_validate_json(data))
        store.delete([file.path for file in receipt.files])  # no receipt names them
    return standing
