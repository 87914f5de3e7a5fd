"""Fan-out in one process: retries, quarantine, resume, and what stops a node at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import Store, StoreError
from ray_jobs.cluster import fan_out as fan_out_module
from ray_jobs.cluster.executor import Executor, Finished, InlineExecutor
from ray_jobs.cluster.fan_out import Limits, NodeFailed, Stage, StageResult, UserError, fan_out
from ray_jobs.cluster.runner import run_node
from tests.faults.toy_nodes import NumbersSpec, path_of, request_of

NO_LIMIT = Limits(shard_retries=0, infrastructure_retries=8, max_quarantined_share=1.0)
PATH = NodePath("toy", "0" * 64)
pytestmark = pytest.mark.usefixtures("toy_nodes")


def run(store: Store, spec: NumbersSpec, **resources: Any) -> Manifest:
    return run_node(store, request_of(spec, **resources))


def failures(store: Store, spec: NumbersSpec) -> list[dict[str, Any]]:
    entries = store.list(f"{path_of(request_of(spec)).root}/attempts/")
    return [json.loads(store.get(entry.path) or b"") for entry in entries if "/failures/" in entry.path]


def test_a_shard_that_fails_once_is_tried_again(file_store: Store, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    spec = NumbersSpec(num_shards=4, raising_once=str(marks))
    manifest = run(file_store, spec)
    assert manifest.quarantined == ()
    assert manifest.counters["documents_kept"] == 16
    assert sorted(failure["shard"] for failure in failures(file_store, spec)) == [0, 1, 2, 3]
    assert "failed once" in failures(file_store, spec)[0]["trace"]


def test_a_poison_shard_is_quarantined_with_its_reason_within_the_limit(file_store: Store) -> None:
    spec = NumbersSpec(num_shards=4, raising=(2,), max_quarantined_share=0.25)
    manifest = run(file_store, spec, shard_retries=1)
    (given_up,) = manifest.quarantined
    assert (given_up.stage, given_up.shard) == ("numbers", 2)
    assert given_up.reason == "ZeroDivisionError: shard 2 is poison"
    assert [file.shard for file in manifest.outputs if not file.volatile] == [0, 1, 3]
    assert len(failures(file_store, spec)) == 2  # tried, and tried once more
    # Nothing was lost silently: the shard is missing from the digest of the content as well.
    assert manifest.content_digest != run(file_store, NumbersSpec(num_shards=4)).content_digest


def test_more_poison_than_the_limit_fails_the_node_and_says_where_to_look(file_store: Store) -> None:
    spec = NumbersSpec(num_shards=4, raising=(1, 2), max_quarantined_share=0.25)
    with pytest.raises(NodeFailed, match=r"2 of 4 shards .* ZeroDivisionError.*attempts/\w+/failures/.* or raise "):
        run(file_store, spec)
    path = path_of(request_of(spec))
    assert file_store.get(path.manifest) is None
    assert any(entry.path.endswith("/failed.json") for entry in file_store.list(f"{path.root}/attempts/"))


def test_a_users_mistake_stops_the_node_without_a_second_try(file_store: Store) -> None:
    spec = NumbersSpec(num_shards=50, user_error=True, max_quarantined_share=1.0)
    with pytest.raises(UserError, match=r"set numbers\.rows to 4"):
        run(file_store, spec)
    assert failures(file_store, spec) == []


def only_computed(computed: list[int], fail_at: int | None = None) -> Callable[[dict[str, Any], None], ShardOutput]:
    def process(shard: dict[str, Any], context: None) -> ShardOutput:
        if shard["index"] == fail_at:
            raise KeyboardInterrupt
        computed.append(shard["index"])
        return ShardOutput({"x": File(str(shard["index"]).encode(), 1)}, {"n": 1})

    return process


def fanned(
    store: Store,
    process: Callable[[dict[str, Any], None], ShardOutput],
    count: int = 6,
    attempt: str = "a",
    limits: Limits = NO_LIMIT,
    executor: Executor | None = None,
    shards_per_task: int = 2,
) -> StageResult:
    return fan_out(
        Stage(store, PATH, attempt, "stage", process, None),
        [{"index": index} for index in range(count)],
        executor or InlineExecutor(),
        shards_per_task,
        limits,
        lambda done, total: None,
        lambda name, content: None,
    )


def test_a_run_that_was_cut_off_goes_on_with_the_missing_shards_only(store: Store) -> None:
    first: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fanned(store, only_computed(first, fail_at=4))
    assert first == [0, 1, 2, 3]
    second: list[int] = []
    result = fanned(store, only_computed(second), attempt="b")
    assert second == [4, 5]
    assert [(receipt.shard, receipt.attempt) for receipt in result.receipts] == [
        *((shard, "a") for shard in range(4)),
        *((shard, "b") for shard in range(4, 6)),
    ]
    third: list[int] = []
    assert fanned(store, only_computed(third), attempt="c").receipts == result.receipts
    assert third == []


def test_a_receipt_whose_file_vanished_is_computed_again(store: Store) -> None:
    receipts = fanned(store, only_computed([])).receipts
    store.delete([receipts[3].files[0].path])
    again: list[int] = []
    assert len(fanned(store, only_computed(again), attempt="b").receipts) == 6
    assert again == [3]


def test_other_shards_than_the_stage_was_begun_with_are_refused(store: Store) -> None:
    fanned(store, only_computed([]))
    with pytest.raises(NodeFailed, match=r"begun with other shards.*Raise the node's version"):
        fanned(store, only_computed([]), count=7)


def test_what_one_attempt_left_out_all_later_ones_leave_out(file_store: Store) -> None:
    """Later stages were made from the rest: a shard that gets through afterwards must not come in from the side."""

    def poison(shard: dict[str, Any], context: None) -> ShardOutput:
        if shard["index"] == 2:
            raise ConnectionResetError("the network was away")
        return ShardOutput({}, {"n": 1})

    first = fanned(file_store, poison)
    assert [given_up.shard for given_up in first.quarantined] == [2]
    healthy: list[int] = []
    second = fanned(file_store, only_computed(healthy), attempt="b")
    assert healthy == []
    assert second == first


def test_a_loser_of_the_race_for_a_stages_end_adopts_the_winners(file_store: Store) -> None:
    def slow_poison(shard: dict[str, Any], context: None) -> ShardOutput:
        if shard["index"] == 5:
            if not rival:  # while we fail at the last shard, another attempt finishes the stage
                rival.append(fanned(file_store, only_computed([]), attempt="rival"))
            raise ConnectionResetError
        return ShardOutput({}, {"n": 1})

    rival: list[StageResult] = []
    ours = fanned(file_store, slow_poison)
    assert ours.quarantined == rival[0].quarantined == []
    assert ours.receipts == rival[0].receipts


def test_a_shard_lost_to_a_race_leaves_no_orphan_and_harms_nothing(store: Store) -> None:
    """The same attempt works twice on one shard when its first worker was given up and is alive all the same."""

    def zombie(shard: dict[str, Any], context: None) -> ShardOutput:
        if shard["index"] == 0 and not standing:
            standing.extend(fanned(store, only_computed([]), count=1, attempt="a").receipts)
        return ShardOutput({"x": File(b"zombie", 1)}, {"n": 1})

    standing: list[Any] = []
    result = fanned(store, zombie, count=1, attempt="a")
    assert result.receipts == standing
    assert [entry.path for entry in store.list(PATH.stage_data("stage"))] == [standing[0].files[0].path]
    assert store.get(standing[0].files[0].path) == b"0"


class LossyExecutor(InlineExecutor):
    """Loses the worker of each batch that holds a lethal shard, or of the first few batches."""

    slots = 2

    def __init__(self, lethal: set[int] = frozenset(), first: int = 0, blameless: bool = False):  # type: ignore[assignment]
        super().__init__()
        self.lethal, self.first, self.blameless = lethal, first, blameless
        self.num_lost = 0
        self.batches: list[list[int]] = []

    def wait(self, seconds: float) -> list[Finished]:
        ticket, batch = self._waiting[0]
        self.batches.append([shard for shard, _ in batch])
        if self.num_lost < self.first or self.lethal & {shard for shard, _ in batch}:
            self.num_lost += 1
            self._waiting.popleft()
            return [Finished(ticket, lost="WorkerCrashedError", blameless=self.blameless)]
        return super().wait(seconds)


def test_lost_workers_are_not_charged_to_their_shards(file_store: Store) -> None:
    limits = Limits(shard_retries=0, infrastructure_retries=8, max_quarantined_share=0.0)
    result = fanned(file_store, only_computed([]), limits=limits, executor=LossyExecutor(first=3, blameless=True))
    assert len(result.receipts) == 6


def test_too_many_lost_workers_fail_the_node(file_store: Store) -> None:
    limits = Limits(shard_retries=100, infrastructure_retries=4, max_quarantined_share=1.0)
    with pytest.raises(
        NodeFailed, match=r"lost workers or its store 5 times, the last: WorkerCrashedError.*infrastructure_retries"
    ):
        fanned(file_store, only_computed([]), limits=limits, executor=LossyExecutor(first=99, blameless=True))


def test_shards_that_kill_their_workers_are_found_and_quarantined_alone(file_store: Store) -> None:
    lethal = {1, 7, 13, 19, 20, 30}
    limits = Limits(shard_retries=1, infrastructure_retries=3, max_quarantined_share=0.2)
    executor = LossyExecutor(lethal)
    result = fanned(file_store, only_computed([]), 32, limits=limits, executor=executor, shards_per_task=8)
    assert {given_up.shard for given_up in result.quarantined} == lethal
    assert {receipt.shard for receipt in result.receipts} == set(range(32)) - lethal


class WatchingExecutor(InlineExecutor):
    """Counts the batches that were submitted and not yet waited for."""

    workers, slots = 3, 12

    def __init__(self) -> None:
        super().__init__()
        self.in_flight: list[int] = []

    def submit(self, ticket: int, batch: Any) -> None:
        super().submit(ticket, batch)
        self.in_flight.append(len(self._waiting))


def test_long_shards_run_on_no_more_than_the_workers_and_short_ones_are_queued(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = WatchingExecutor()
    fanned(file_store, only_computed([]), 40, executor=short, shards_per_task=1)
    assert max(short.in_flight) == 12
    monkeypatch.setattr(fan_out_module, "SHORT_SECONDS", 0.0)  # now all of them count as long
    long = WatchingExecutor()
    file_store.delete([entry.path for entry in list(file_store.list(""))])
    fanned(file_store, only_computed([]), 40, executor=long, shards_per_task=1)
    assert max(long.in_flight) == 3


class FailingStore:
    """Passes everything on, and fails the first writes of data."""

    def __init__(self, store: Store, failures: int):
        self._store, self._failures = store, failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_many(self, objects: Any) -> None:
        if "/data/" in objects[0][0] and self._failures:
            self._failures -= 1
            raise StoreError("the disk is full: free space")
        self._store.put_many(objects)


def test_a_store_that_fails_for_a_while_costs_no_shard(file_store: Store) -> None:
    result = fanned(FailingStore(file_store, 5), only_computed([]), limits=Limits(0, 8, 0.0))  # type: ignore[arg-type]
    assert len(result.receipts) == 6
    assert result.quarantined == []


def test_a_store_that_keeps_failing_fails_the_node_with_the_stores_advice(file_store: Store) -> None:
    with pytest.raises(NodeFailed, match="the disk is full: free space"):
        fanned(FailingStore(file_store, 999), only_computed([]), limits=Limits(9, 3, 1.0))  # type: ignore[arg-type]


def test_shards_that_do_not_add_up_are_refused(file_store: Store) -> None:
    def leaky(shard: dict[str, Any], context: None) -> ShardOutput:
        return ShardOutput({}, {"documents_in": 3, "documents_kept": 1, "dropped.short": 1})

    with pytest.raises(NodeFailed, match="3 documents entered, 1 kept"):
        fanned(file_store, leaky, limits=Limits(0, 0, 0.0))
