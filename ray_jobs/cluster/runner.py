"""Running one node to its commit: the protocol, from lease to manifest. Ray only enters through the executor."""

import contextlib
import importlib
import json
import logging
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any

from configs.base import Resources
from configs.nodes import NODES, NodeKind
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.code import code_of
from ray_jobs.checkpoint.keys import key_of, key_payload
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.lease import Lease, LeaseRecord
from ray_jobs.checkpoint.manifest import (
    InputRef,
    Manifest,
    digest_of_receipts,
    missing_outputs,
    parse_manifest,
    read_manifest,
    withdraw,
)
from ray_jobs.checkpoint.shards import Outcome, Record, add_counters, check_funnel
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import Executor, InlineExecutor, RayExecutor
from ray_jobs.cluster.fan_out import NodeFailed, UserError, own_cpu_seconds
from ray_jobs.cluster.output import NodeOutput

log = logging.getLogger("headrace")


class InputKey(Record):
    node: str
    key: str


class NodeRequest(Record):
    """What a Ray job is asked to compute."""

    node: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, InputKey]
    generation: int = 1
    resources: dict[str, Any]
    submission: str | None = None

    def payload(self, kind: NodeKind) -> dict[str, Any]:
        spec = kind.spec.model_validate(self.spec)
        inputs = {slot: upstream.key for slot, upstream in self.inputs.items()}
        return key_payload(self.node, self.version, spec, inputs, self.generation)


def run_node(
    store: Store, request: NodeRequest, executor_of: Callable[[Resources], Executor] | None = None
) -> Manifest:
    """Computes the node unless its manifest stands, and returns the manifest that stands.

    Raises:
        UserError: the request cannot be computed as it is.
        NodeFailed: too many shards or workers were lost.
    """
    kind = _kind_of(request)
    payload = request.payload(kind)
    path = NodePath(request.node, key_of(payload))
    attempt = secrets.token_hex(6)
    reads = tuple(NodePath(upstream.node, upstream.key).root for upstream in request.inputs.values())
    while (standing := finished_manifest(store, path)) is None:
        lease = Lease(store, path.lease, attempt, request.submission, reads)
        if not lease.acquire(lambda: finished_manifest(store, path) is not None, _tell_of_holder):
            continue
        with lease:
            if _stands_or_is_withdrawn(store, path):  # the holder we waited for committed it and went
                continue
            return _compute(store, request, kind, payload, path, attempt, lease, executor_of or _executor_of)
    log.info("%s is done already (attempt %s)", path.root, standing.attempt)
    return standing


def finished_manifest(store: Store, path: NodePath) -> Manifest | None:
    """The node's manifest if all its outputs are there."""
    manifest = read_manifest(store, path)
    return None if manifest is None or missing_outputs(store, manifest) else manifest


def _stands_or_is_withdrawn(store: Store, path: NodePath) -> bool:
    """Whether the node is finished after all; a damaged manifest is withdrawn.

    One reading decides both: another attempt may have mended the node since its damage was seen, also
    without our lease. To be called only under the lease.
    """
    manifest = read_manifest(store, path)
    if manifest is None:
        return False
    missing = missing_outputs(store, manifest)
    if not missing:
        return True
    log.warning("%s: computing %d missing or damaged outputs again (%s)", path.root, len(missing), missing[0])
    withdraw(store, path, {output.file.path for output in missing})
    return False


def _kind_of(request: NodeRequest) -> NodeKind:
    kind = NODES.get(request.node)
    if kind is None:
        raise UserError(
            f"this code knows no node {request.node!r}, only {', '.join(NODES)}: deploy the submitting version"
        )
    if kind.version != request.version:
        raise UserError(
            f"{request.node} was submitted as version {request.version}, this code has {kind.version}: "
            "run the same revision of Headrace on the cluster and where you submit"
        )
    return kind


def _tell_of_holder(record: LeaseRecord) -> None:
    log.info(
        "waiting for attempt %s, which computes this node on %s (pid %d)",
        record.attempt,
        record.host,
        record.pid,
    )


def _executor_of(resources: Resources) -> Executor:
    return InlineExecutor() if resources.workers == 1 else RayExecutor(resources)


def _compute(
    store: Store,
    request: NodeRequest,
    kind: NodeKind,
    payload: dict[str, Any],
    path: NodePath,
    attempt: str,
    lease: Lease,
    executor_of: Callable[[Resources], Executor],
) -> Manifest:
    started, began, cpu_began = time.time(), time.monotonic(), own_cpu_seconds()
    spec = kind.spec.model_validate(request.spec)
    resources = Resources.model_validate(request.resources)
    inputs = {slot: Checkpoint.open(store, upstream.node, upstream.key) for slot, upstream in request.inputs.items()}
    output = NodeOutput(
        store,
        path,
        attempt,
        resources,
        executor=lambda: executor_of(resources),
        max_quarantined_share=getattr(spec, "max_quarantined_share", 0.0),
        show=lease.show,
    )
    output.record("started.json", {"request": request.model_dump(), "at": started})
    module, _, function = kind.job.partition(":")
    try:
        outcome: Outcome = getattr(importlib.import_module(module), function)(spec, inputs, output, resources)
    except BaseException as error:
        failure = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        with contextlib.suppress(OSError):  # where the store is away, that is the error to report
            output.flush()
            output.record("failed.json", failure)
        raise
    output.flush()
    manifest = _manifest(request, kind, payload, path, attempt, inputs, output, outcome, resources)
    manifest = manifest.model_copy(
        update={
            "started": started,
            "seconds": round(time.monotonic() - began, 3),
            "cpu_seconds": round(manifest.cpu_seconds + own_cpu_seconds() - cpu_began, 3),
            "gpu_seconds": round(resources.gpus * resources.workers * (time.monotonic() - began), 3),
        }
    )
    return commit(store, manifest)


def _manifest(
    request: NodeRequest,
    kind: NodeKind,
    payload: dict[str, Any],
    path: NodePath,
    attempt: str,
    inputs: dict[str, Checkpoint],
    output: NodeOutput,
    outcome: Outcome,
    resources: Resources,
) -> Manifest:
    receipts = [receipt for _, receipt in sorted(output.receipts.items())]
    published = [receipt for receipt in receipts if receipt.stage in outcome.outputs]
    counters = outcome.counters
    if counters is None:
        counters = add_counters(receipt.counters for receipt in published)
    check_funnel(counters, request.node)
    sources = sorted({source for upstream in inputs.values() for source in upstream.manifest.sources})
    return Manifest(
        node=request.node,
        key=path.key,
        payload=payload,
        inputs={
            slot: InputRef(node=upstream.node, key=upstream.key, content_digest=upstream.manifest.content_digest)
            for slot, upstream in inputs.items()
        },
        output_stages=outcome.outputs,
        outputs=tuple(file for receipt in published for file in receipt.files),
        counters=counters,
        metrics=outcome.metrics,
        quarantined=tuple(output.quarantined),
        content_digest=digest_of_receipts(path.key, published, output.quarantined),
        code=code_of(kind.room, kind.version),
        resources=json.loads(resources.model_dump_json()),
        attempt=attempt,
        started=0.0,
        seconds=0.0,
        cpu_seconds=outcome.cpu_seconds
        + sum(receipt.cpu_seconds for receipt in receipts if not output.in_own_process(receipt)),
        world_size=resources.workers,
        sources=tuple(sources) or (path.key,),
    )


def commit(store: Store, manifest: Manifest) -> Manifest:
    """Publishes the manifest create-only; where another attempt was first, what stands is adopted.

    Raises:
        NodeFailed: outputs vanished while the node was computed.
    """
    missing = missing_outputs(store, manifest)
    if missing:
        withdraw(store, manifest.path, {output.file.path for output in missing})
        raise NodeFailed(
            f"{len(missing)} outputs vanished while the node was computed ({missing[0]}): find what deletes from "
            f"{store.url}, then run again: only these are computed"
        )
    if store.create(manifest.path.manifest, manifest.to_json()):
        return manifest
    data = store.get(manifest.path.manifest)
    assert data is not None, f"{manifest.path.manifest} was there a moment ago"
    standing = parse_manifest(data, manifest.path)
    if standing.content_digest != manifest.content_digest:
        log.warning(
            "attempts %s and %s of %s differ in content (%s, %s): the node is not deterministic; the first stands",
            standing.attempt,
            manifest.attempt,
            manifest.path.root,
            standing.content_digest[:16],
            manifest.content_digest[:16],
        )
    return standing


__all__ = [
    "InputKey",
    "NodeFailed",
    "NodeRequest",
    "UserError",
    "commit",
    "finished_manifest",
    "run_node",
]
