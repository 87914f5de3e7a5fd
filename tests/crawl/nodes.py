"""Runs this room's jobs in process, without lease and commit, and gives their checkpoints."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.base import Resources, Spec
from configs.crawl import FilterSpec, PinnedFile
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.keys import key_of, key_payload
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Code, Manifest, digest_of_receipts
from ray_jobs.checkpoint.shards import Outcome, ShardOutput, add_counters, check_funnel
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.crawl.job import FilterContext, filter_archive
from ray_jobs.crawl.pins import describe

Job = Callable[[Spec, dict[str, Checkpoint], NodeOutput, Resources], Outcome]


def run_job(store: Store, job: Job, spec: Spec, inputs: Mapping[str, Checkpoint]) -> Checkpoint:
    payload = key_payload(spec.node, spec.version, spec, {slot: node.key for slot, node in inputs.items()})
    path = NodePath(spec.node, key_of(payload))
    share = getattr(spec, "max_quarantined_share", 0.0)
    output = NodeOutput(store, path, "attempt", Resources(workers=1), InlineExecutor, share)
    outcome = job(spec, dict(inputs), output, output.resources)
    receipts = [receipt for _, receipt in sorted(output.receipts.items()) if receipt.stage in outcome.outputs]
    counters = outcome.counters
    if counters is None:
        counters = add_counters(receipt.counters for receipt in receipts)
    check_funnel(counters, spec.node)
    manifest = Manifest(
        node=spec.node,
        key=path.key,
        payload=payload,
        inputs={},
        outputs=tuple(file for receipt in receipts for file in receipt.files),
        counters=counters,
        metrics=outcome.metrics,
        quarantined=tuple(output.quarantined),
        content_digest=digest_of_receipts(path.key, receipts, output.quarantined),
        code=Code(version=spec.version, digest=""),
        resources={},
        attempt="attempt",
        started=0.0,
        seconds=0.0,
        cpu_seconds=0.0,
    )
    return Checkpoint(store, manifest)


def filter_one(file: Path | str | PinnedFile, spec: FilterSpec | None = None) -> ShardOutput:
    """What filter makes of one archive; the funnel is checked."""
    pinned = file if isinstance(file, PinnedFile) else describe(str(file))
    context = FilterContext(spec or FilterSpec(languages=()), "test", None)
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
