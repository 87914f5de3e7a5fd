"""What a node may lose: `NodeOutput.fan_out` and `fan_out_apart` within the spec's share, by stage."""

import secrets
from collections.abc import Sequence
from typing import Any

import pytest

from configs.base import Resources
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.cluster.output import NodeOutput

PATH = NodePath("toy", "0" * 64)


def output_of(store: Store, share: float, retries: int = 0) -> NodeOutput:
    resources = Resources(workers=1, shard_retries=retries)
    return NodeOutput(store, PATH, secrets.token_hex(6), resources, InlineExecutor, max_quarantined_share=share)


def shards(num_files: int, files_a_shard: int = 1) -> list[dict[str, int]]:
    return [
        {"first": first, "end": min(num_files, first + files_a_shard)} for first in range(0, num_files, files_a_shard)
    ]


def files_of(shard: dict[str, int]) -> list[dict[str, int]]:
    return [{"first": file, "end": file + 1} for file in range(shard["first"], shard["end"])]


def write(shard: dict[str, Any], poison: Sequence[int]) -> ShardOutput:
    """The numbers of the shard's files."""
    files = range(shard["first"], shard["end"])
    if set(poison) & set(files):
        raise ZeroDivisionError("poison")
    return ShardOutput({"files": File(" ".join(map(str, files)).encode())}, {"n": len(files)})


def written(output: NodeOutput, stage: str) -> list[str]:
    return [output.read(file).decode() for receipt in output.receipts_of(stage) for file in receipt.files]


def test_a_stage_that_may_lose_none_fails_at_the_first_shard_however_large_the_share(file_store: Store) -> None:
    output = output_of(file_store, share=1.0)
    with pytest.raises(NodeFailed, match="1 of 8 shards of stage whole failed 1 times"):
        output.fan_out("whole", shards(8), write, (3,), may_lose=False)
    assert output.quarantined == []
    assert [receipt.shard for receipt in output.fan_out("some", shards(8), write, (3,))] == [0, 1, 2, 4, 5, 6, 7]
    assert [(gone.stage, gone.shard) for gone in output.quarantined] == [("some", 3)]


def test_a_stage_that_may_lose_none_tries_each_shard_again_and_goes_on_where_it_stopped(file_store: Store) -> None:
    output = output_of(file_store, share=1.0, retries=2)
    with pytest.raises(NodeFailed, match="failed 3 times"):
        output.fan_out("whole", shards(4), write, (1,), may_lose=False)
    # Nothing was settled by that: the next attempt, with the cause mended, computes what is missing and no more.
    later = output_of(file_store, share=1.0)
    receipts = later.fan_out("whole", shards(4), write, (), may_lose=False)
    assert written(later, "whole") == ["0", "1", "2", "3"]
    assert [receipt.attempt == later.attempt for receipt in receipts][1]
    assert any(receipt.attempt == output.attempt for receipt in receipts)


def test_a_shard_that_fails_is_taken_apart_and_costs_the_parts_that_fail_alone(file_store: Store) -> None:
    output = output_of(file_store, share=0.2)
    receipts = output.fan_out_apart("groups", shards(12, 4), files_of, write, (5, 6))
    assert [(receipt.stage, receipt.counters["n"]) for receipt in receipts] == [
        *[("groups", 4)] * 2,
        *[("groups-apart", 1)] * 2,
    ]
    assert written(output, "groups") + written(output, "groups-apart") == ["0 1 2 3", "8 9 10 11", "4", "7"]
    lost = [(gone.stage, gone.shard, gone.reason) for gone in output.quarantined]
    assert lost == [("groups-apart", place, "ZeroDivisionError: poison") for place in (1, 2)]
    # What was left out stays left out, and nothing is computed twice.
    later = output_of(file_store, share=0.2)
    assert later.fan_out_apart("groups", shards(12, 4), files_of, write, ()) == receipts
    assert later.quarantined == output.quarantined


@pytest.mark.parametrize(("share", "poison", "stage"), [(0.2, (0, 1, 2), "groups-apart"), (0.1, (0, 4), "groups")])
def test_more_lost_parts_than_the_share_of_all_fail_the_node(
    file_store: Store, share: float, poison: tuple[int, ...], stage: str
) -> None:
    """Of 12 files two are a share of .2; where one may go, two groups with such a file are too many already."""
    output = output_of(file_store, share)
    with pytest.raises(NodeFailed, match=f"of stage {stage} failed"):
        output.fan_out_apart("groups", shards(12, 4), files_of, write, poison)


def test_shards_that_all_succeed_are_not_taken_apart(file_store: Store) -> None:
    output = output_of(file_store, share=1.0)
    assert len(output.fan_out_apart("groups", shards(12, 5), files_of, write, ())) == 3
    assert output.receipts_of("groups-apart") == []
