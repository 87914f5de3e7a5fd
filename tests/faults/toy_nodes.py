"""Nodes that compute little and fail as they are told, for tests of the protocol."""

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from configs.base import Resources, Spec
from configs.nodes import NodeKind
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.keys import key_of
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.cluster.runner import InputKey, NodeRequest


class NumbersSpec(Spec):
    """Writes the numbers from 0 on, a line each, in shards."""

    node: ClassVar[str] = "numbers"
    version: ClassVar[int] = 1

    num_shards: int = 3
    rows: int = 4
    raising: tuple[int, ...] = ()
    """Shards that raise, always."""
    raising_once: str = ""
    """A folder: every shard raises as long as it has left no mark there."""
    lethal: tuple[int, ...] = ()
    """Shards that end their process."""
    lethal_once: str = ""
    """A folder: shard 1 kills its process as long as it has left no mark there."""
    user_error: bool = False
    seconds: float = 0.0
    max_quarantined_share: float = Field(default=0.0, ge=0, le=1)


class SumsSpec(Spec):
    """Sums each shard of numbers, then all of those: two stages, the second computed by the job itself."""

    node: ClassVar[str] = "sums"
    version: ClassVar[int] = 1

    factor: int = 1


def numbers(spec: NumbersSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    shards = [{"index": index, "first": index * spec.rows} for index in range(spec.num_shards)]
    output.fan_out("numbers", shards, write_numbers, spec)
    return Outcome(("numbers",))


def write_numbers(shard: dict[str, Any], spec: NumbersSpec) -> ShardOutput:
    index = shard["index"]
    if spec.user_error:
        raise UserError("rows makes no sense: set numbers.rows to 4")
    if index in spec.raising:
        raise ZeroDivisionError(f"shard {index} is poison")
    if index in spec.lethal:
        os._exit(13)
    if spec.raising_once and _first_time(spec.raising_once, index):
        raise ConnectionResetError(f"shard {index} failed once")
    if spec.lethal_once and index == 1 and _first_time(spec.lethal_once, index):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(spec.seconds)
    lines = "".join(f"{number}\n" for number in range(shard["first"], shard["first"] + spec.rows))
    return ShardOutput(
        {"numbers.txt": File(lines.encode(), spec.rows), "took.txt": File(repr(time.time()).encode(), volatile=True)},
        {"documents_in": spec.rows + 1, "documents_kept": spec.rows, "dropped.never": 1},
    )


def _first_time(folder: str, index: int) -> bool:
    try:
        (Path(folder) / str(index)).touch(exist_ok=False)
        return True
    except FileExistsError:
        return False


def sums(spec: SumsSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    files = inputs["numbers"].files("numbers.txt")
    partial = output.fan_out(
        "partial", [{"input": index} for index in range(len(files))], add_up, (spec, inputs["numbers"])
    )
    if output.standing("total") is None:
        total = sum(int(output.read(receipt.files[0])) for receipt in partial)
        output.log_metrics({"total": total})
        output.write("total", ShardOutput({"total.txt": File(str(total).encode(), 1)}, {"documents": len(partial)}))
    return Outcome(("total",), metrics={"shards": len(partial)})


def add_up(shard: dict[str, Any], context: tuple[SumsSpec, Checkpoint]) -> ShardOutput:
    spec, upstream = context
    data = upstream.read(upstream.files("numbers.txt")[shard["input"]])
    total = spec.factor * sum(int(line) for line in data.split())
    return ShardOutput({"sum.txt": File(str(total).encode(), 1)}, {"documents": 1})


MODULE = "tests.faults.toy_nodes"
TOY_KINDS = (
    NodeKind(NumbersSpec, f"{MODULE}:numbers"),
    NodeKind(SumsSpec, f"{MODULE}:sums", {"numbers": "numbers"}),
)


def request_of(spec: Spec, inputs: dict[str, InputKey] | None = None, **resources: Any) -> NodeRequest:
    return NodeRequest(
        node=spec.node,
        version=spec.version,
        spec=spec.model_dump(mode="json"),
        inputs=inputs or {},
        resources=Resources(**{"workers": 1, **resources}).model_dump(),
    )


def path_of(request: NodeRequest) -> NodePath:
    kind = next(kind for kind in TOY_KINDS if kind.name == request.node)
    return NodePath(request.node, key_of(request.payload(kind)))
