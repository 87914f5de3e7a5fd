"""Runs this room's nodes in process, through the real protocol, and single archives through filter's function."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.base import Resources, Spec
from configs.crawl import FilterSpec, PinnedFile
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import ShardOutput, check_funnel
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from ray_jobs.crawl.job import FilterContext, filter_archive
from ray_jobs.files.pins import describe


def run(store: Store, spec: Spec, inputs: Mapping[str, Checkpoint] | None = None) -> Checkpoint:
    request = NodeRequest(
        node=spec.node,
        version=spec.version,
        spec=json.loads(spec.model_dump_json()),
        inputs={slot: InputKey(node=node.node, key=node.key) for slot, node in (inputs or {}).items()},
        resources=Resources(workers=1, shard_retries=1).model_dump(),
    )
    return Checkpoint(store, run_node(store, request))


NO_HEURISTICS: dict[str, Any] = {"gopher_quality": None, "gopher_repetition": None, "fineweb": None}
"""Fields of a filter for tests that are about archives and pages, and not about what a good text is."""


def filter_one(file: Path | str | PinnedFile, spec: FilterSpec | None = None) -> ShardOutput:
    """What filter makes of one archive; the funnel is checked."""
    pinned = file if isinstance(file, PinnedFile) else describe(str(file))
    context = FilterContext(spec or FilterSpec(languages=(), **NO_HEURISTICS), "test", None)
    output = filter_archive({"file": 0, "pinned": pinned.model_dump(mode="json")}, context)
    check_funnel(output.counters, str(file))
    return output


def table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def rows(output: ShardOutput, name: str) -> list[dict]:
    return table(output.files[name].data).to_pylist()


def counted(output: ShardOutput, *prefixes: str) -> dict[str, int]:
    """Counters that are not zero, of those that begin with one of the prefixes."""
    return {name: value for name, value in output.counters.items() if value and name.startswith(prefixes)}
