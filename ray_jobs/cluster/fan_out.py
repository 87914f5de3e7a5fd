"""Fan-out: many short shards over few tasks, each shard with a receipt of its own.

The driver hands out batches of shards; a worker computes each, writes its files under names of this attempt and
publishes its receipt. What is published is never computed again: a killed run goes on with the shards that have none.
"""

import hashlib
import resource
import secrets
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ray_jobs.checkpoint.checkpoint import DamagedOutput
from ray_jobs.checkpoint.keys import canonical_json
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Quarantined, StageEnd
from ray_jobs.checkpoint.shards import OutputFile, Receipt, ShardOutput, check_funnel
from ray_jobs.checkpoint.store import Store, StoreError
from ray_jobs.cluster.executor import Executor, Finished

# Receipts of shards that take milliseconds are published together; a longer shard's receipt never waits.
PUBLISH_SECONDS = 0.2
# A batch that computes less than this is short: the driver's own milliseconds would show between two of them.
SHORT_SECONDS = 0.5


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


class Fault(Enum):
    """What a shard's failure says about the node."""

    SHARD = "shard"
    """Its input or its function: tried again, then quarantined."""
    USER = "user"
    """The recipe: the node stops."""
    INPUT = "input"
    """An upstream checkpoint is damaged: the node stops, as going on would lose documents silently."""
    STORE = "store"
    """The store was away longer than it is waited for: tried again on the budget of lost workers."""


@dataclass(frozen=True)
class ShardFailure:
    shard: int
    reason: str
    trace: str
    fault: Fault


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
    receipts = {receipt.shard: receipt for receipt in _sound_receipts(stage)}
    end = _read_end(stage) if receipts else None
    settled = {shard.shard for shard in end.quarantined} if end else set()
    todo = [index for index in range(len(shards)) if index not in receipts and index not in settled]
    given_up: dict[int, str] = {}
    if todo:
        _Driver(stage, shards, executor, limits, on_progress, on_failure, receipts, given_up).run(todo, shards_per_task)
    if end is None:
        end = _publish_end(stage, given_up)
    quarantined = {shard.shard for shard in end.quarantined}
    for shard in sorted(given_up.keys() - quarantined):
        receipt = read_receipt(stage.store, stage.path, stage.name, shard)
        if receipt is None:  # it stood when the stage ended, was damaged since, and cannot be computed again
            raise NodeFailed(
                f"shard {shard} of stage {stage.name} was finished once and fails now: {given_up[shard]}. Mend the "
                "cause, or raise the node's generation in the recipe to compute all of it anew"
            )
        receipts[shard] = receipt
    on_progress(len(receipts), len(shards))
    return StageResult(
        [receipts[shard] for shard in sorted(receipts) if shard not in quarantined], list(end.quarantined)
    )


def _publish_end(stage: Stage, given_up: Mapping[int, str]) -> StageEnd:
    """Settles which shards are left out, once for all attempts: what later stages make of the rest depends on it."""
    quarantined = [Quarantined(stage=stage.name, shard=shard, reason=given_up[shard]) for shard in sorted(given_up)]
    end = StageEnd(attempt=stage.attempt, quarantined=tuple(quarantined))
    if stage.store.create(stage.path.stage_end(stage.name), end.to_json()):
        return end
    standing = _read_end(stage)
    assert standing is not None, f"{stage.path.stage_end(stage.name)} was there a moment ago"
    return standing


def _read_end(stage: Stage) -> StageEnd | None:
    data = stage.store.get(stage.path.stage_end(stage.name))
    return None if data is None else StageEnd.model_validate_json(data)


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
        self.in_flight = executor.workers

    def run(self, todo: list[int], shards_per_task: int) -> None:
        # Few shards are spread over all slots rather than packed into one task.
        per_task = max(1, min(shards_per_task, len(todo) // self.executor.slots))
        waiting = deque(todo[first : first + per_task] for first in range(0, len(todo), per_task))
        running: dict[int, list[int]] = {}
        ticket = 0
        self.executor.start(work_on, self.stage)
        try:
            while waiting or running:
                while waiting and len(running) < self.in_flight:
                    batch = waiting.popleft()
                    running[ticket] = batch
                    self.executor.submit(ticket, [(shard, self.shards[shard]) for shard in batch])
                    ticket += 1
                for finished in self.executor.wait(1.0):
                    batch = running.pop(finished.ticket)
                    if finished.lost is not None:
                        # At once, so that the shard that did it is found before it is met by chance in more batches.
                        waiting.extendleft(reversed(self._after_loss(batch, finished)))
                    else:
                        waiting.extend(self._after_result(finished.result))
                self.on_progress(len(self.receipts), len(self.shards))
        except BaseException:
            self.executor.cancel()
            raise

    def _after_result(self, results: list[Receipt | ShardFailure]) -> list[list[int]]:
        # More than the workers are kept busy with only where each batch is over in no time: a long shard may need all
        # the memory that `resources.workers` leaves it.
        busy_seconds = sum(result.seconds for result in results if isinstance(result, Receipt))
        self.in_flight = self.executor.slots if busy_seconds < SHORT_SECONDS else self.executor.workers
        again: list[list[int]] = []
        store_failure: ShardFailure | None = None
        for result in results:
            if isinstance(result, Receipt):
                self.receipts[result.shard] = result
            elif result.fault is Fault.USER:
                raise UserError(result.reason)
            elif result.fault is Fault.INPUT:
                raise NodeFailed(f"shard {result.shard} of stage {self.stage.name} cannot be read: {result.reason}")
            elif result.fault is Fault.STORE:
                store_failure = result
                again.append([result.shard])
            elif self._strike(result.shard, result.reason, result.trace):
                again.append([result.shard])
        if store_failure is not None:
            self._charge_loss(store_failure.reason)
        return again

    def _after_loss(self, batch: list[int], finished: Finished) -> list[list[int]]:
        assert finished.lost is not None
        # Some of the batch may be published. The rest goes on alone, so that a shard that kills its worker is found.
        for shard in batch:
            receipt = read_receipt(self.stage.store, self.stage.path, self.stage.name, shard)
            if receipt is not None:
                self.receipts[shard] = receipt
        rest = [shard for shard in batch if shard not in self.receipts]
        if len(rest) != 1 or finished.blameless:
            self._charge_loss(finished.lost)
        elif not self._strike(rest[0], f"its worker was lost: {finished.lost}", ""):
            # It was this shard that took the larger batch's worker with it: that is not the machines' fault.
            self.num_lost = max(0, self.num_lost - 1)
            return []
        return [[shard] for shard in rest]

    def _charge_loss(self, reason: str) -> None:
        self.num_lost += 1
        if self.num_lost > self.limits.infrastructure_retries:
            raise NodeFailed(
                f"stage {self.stage.name} lost workers or its store {self.num_lost} times, the last: {reason}. Look at "
                "that, at the machines' memory and at preemption; lower resources.workers or raise "
                "resources.infrastructure_retries, then run again: finished shards are kept"
            )

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
                f"{self.stage.path.root}/attempts/{self.stage.attempt}/failures/. Mend the cause and run again, or "
                "raise max_quarantined_share to go on without them"
            )
        return False


def publish_plan(store: Store, path: NodePath, stage: str, shards: Sequence[dict[str, Any]]) -> None:
    """Fixes what each shard works on, before the first is computed.

    Where an input lies is left out: an upstream node that was collected and computed again has the same content, by its
    checksums, under the names of another attempt.
    """
    if not store.create(path.shards(stage), canonical_json(_without_paths(list(shards))).encode()):
        raise NodeFailed(
            f"stage {stage} was begun with other shards than this code would make: the code changed under the same "
            "version. Raise the node's version (or its generation in the recipe), then run again"
        )


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(item) for name, item in value.items() if name != "path"}
    return [_without_paths(item) for item in value] if isinstance(value, list | tuple) else value


def read_receipts(store: Store, path: NodePath, stage: str) -> list[Receipt]:
    """All that stand, in the order of shards."""
    paths = [entry.path for entry in store.list(path.receipts(stage))]
    receipts = [Receipt.model_validate_json(data) for data in store.get_many(paths) if data is not None]
    return sorted(receipts, key=lambda receipt: receipt.shard)


def _sound_receipts(stage: Stage) -> list[Receipt]:
    """The receipts whose files are all there; the others are taken back, so that their shards are computed again."""
    receipts = read_receipts(stage.store, stage.path, stage.name)
    if not any(receipt.files for receipt in receipts):
        return receipts
    # Listed after the receipts were: whatever they name was written before them.
    sizes = {entry.path: entry.size for entry in stage.store.list(stage.path.stage_data(stage.name))}
    damaged = [r for r in receipts if any(sizes.get(file.path) != file.bytes for file in r.files)]
    stage.store.delete([stage.path.receipt(stage.name, receipt.shard) for receipt in damaged])
    return [receipt for receipt in receipts if receipt not in damaged] if damaged else receipts


def read_receipt(store: Store, path: NodePath, stage: str, shard: int) -> Receipt | None:
    data = store.get(path.receipt(stage, shard))
    return None if data is None else Receipt.model_validate_json(data)


def work_on(stage: Stage, batch: list[tuple[int, dict[str, Any]]]) -> list[Receipt | ShardFailure]:
    """Runs in a worker: computes and publishes the shards of one batch."""
    results: list[Receipt | ShardFailure] = []
    unpublished: list[Receipt] = []
    last_publication = time.monotonic()
    for shard, inputs in batch:
        try:
            unpublished.append(compute_shard(stage, shard, inputs))
        # Whatever a shard raises is its result here, with its trace.
        except Exception as error:  # noqa: BLE001
            failure = _failure_of(shard, error)
            results.append(failure)
            if failure.fault in {Fault.USER, Fault.INPUT}:
                break
        if time.monotonic() - last_publication > PUBLISH_SECONDS:
            results += _published(stage, unpublished)
            unpublished, last_publication = [], time.monotonic()
    return results + _published(stage, unpublished)


def _failure_of(shard: int, error: Exception) -> ShardFailure:
    if isinstance(error, UserError):
        return ShardFailure(shard, str(error), "", Fault.USER)
    fault = (
        Fault.INPUT
        if isinstance(error, DamagedOutput)
        else Fault.STORE
        if isinstance(error, StoreError)
        else Fault.SHARD
    )
    return ShardFailure(shard, f"{type(error).__name__}: {error}", traceback.format_exc(), fault)


def _published(stage: Stage, receipts: list[Receipt]) -> list[Receipt | ShardFailure]:
    try:
        return list(publish(stage.store, stage.path, receipts))
    except StoreError as error:
        return [ShardFailure(receipt.shard, str(error), traceback.format_exc(), Fault.STORE) for receipt in receipts]


def own_cpu_seconds() -> float:
    """Of this process and of its children that have ended, such as extraction's workers."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in usage)


def compute_shard(stage: Stage, shard: int, inputs: dict[str, Any]) -> Receipt:
    began, cpu_began = time.monotonic(), own_cpu_seconds()
    output = stage.process(inputs, stage.context)
    return write_shard(stage, shard, output, time.monotonic() - began, own_cpu_seconds() - cpu_began)


def write_shard(stage: Stage, shard: int, output: ShardOutput, seconds: float, cpu_seconds: float) -> Receipt:
    """Writes the shard's files; its receipt is returned, not yet published."""
    check_funnel(output.counters, f"{stage.path.node}, stage {stage.name}, shard {shard}")
    token = secrets.token_hex(3)
    named = [
        (stage.path.data(stage.name, shard, stage.attempt, token, name), name, file)
        for name, file in sorted(output.files.items())
    ]
    if named:
        stage.store.put_many([(path, file.data) for path, _, file in named])
    files = []
    for path, name, file in named:
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
