"""Fan-out over real Ray tasks: the same content as in one process, whatever happens to the workers."""

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint.manifest import Manifest
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.runner import InputKey, run_node
from tests.faults.toy_nodes import NumbersSpec, SumsSpec, request_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("toy_nodes", "ray_cluster")]


def run(store: Store, spec: NumbersSpec, workers: int = 2, **resources: Any) -> Manifest:
    return run_node(store, request_of(spec, workers=workers, **resources))


def shards_of(manifest: Manifest) -> list[int]:
    return [file.shard for file in manifest.outputs if file.name == "numbers.txt"]


@pytest.mark.parametrize("shards_per_task", [1, 16])
def test_workers_leave_the_same_content_as_one_process(store: Store, tmp_path: Path, shards_per_task: int) -> None:
    spec = NumbersSpec(num_shards=40)
    alone = run(open_store(tmp_path / "alone"), spec, workers=1)
    manifest = run(store, spec, shards_per_task=shards_per_task)
    assert manifest.content_digest == alone.content_digest
    assert manifest.world_size == 2
    sums = request_of(SumsSpec(), {"numbers": InputKey(node="numbers", key=manifest.key)}, workers=2)
    total = run_node(store, sums).outputs[0]
    assert store.get(total.path) == str(sum(range(160))).encode()
    assert list(verify(store, deep=True)) == []


def test_a_worker_killed_in_the_middle_of_a_batch_costs_nothing(file_store: Store, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    spec = NumbersSpec(num_shards=32, lethal_once=str(marks))
    # A limit of none: the lost worker is charged to no shard.
    manifest = run(file_store, spec, shards_per_task=16, shard_retries=0)
    assert (marks / "1").exists()
    assert shards_of(manifest) == list(range(32))
    assert manifest.counters["documents_kept"] == 32 * 4
    assert list(verify(file_store, deep=True)) == []


def test_shards_that_kill_their_workers_are_quarantined_alone(file_store: Store) -> None:
    spec = NumbersSpec(num_shards=32, lethal=(3, 21), max_quarantined_share=0.1)
    manifest = run(file_store, spec, shards_per_task=8, shard_retries=1)
    assert [shard.shard for shard in manifest.quarantined] == [3, 21]
    assert all("its worker was lost" in shard.reason for shard in manifest.quarantined)
    assert shards_of(manifest) == [shard for shard in range(32) if shard not in {3, 21}]


def test_poison_is_quarantined_and_a_users_mistake_stops_the_node(file_store: Store) -> None:
    manifest = run(file_store, NumbersSpec(num_shards=20, raising=(7,), max_quarantined_share=0.05))
    assert [(shard.shard, shard.reason) for shard in manifest.quarantined] == [
        (7, "ZeroDivisionError: shard 7 is poison")
    ]
    with pytest.raises(NodeFailed, match="1 of 20 shards"):
        run(file_store, NumbersSpec(num_shards=20, raising=(7,)))
    with pytest.raises(UserError, match=r"set numbers\.rows to 4"):
        run(file_store, NumbersSpec(num_shards=20, user_error=True))
