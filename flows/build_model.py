"""build-model: from a crawl to an evaluated model, one Prefect task a node.

plan -> for every node in order: HIT (Cached), or a Ray job to its manifest -> the run's record
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Crashed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from configs.recipe import load_recipe
from ray_jobs.checkpoint.doctor import require_create_only
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.lease import process_started
from ray_jobs.checkpoint.runs import Run, RunNode, begin_run, end_run, new_run_id, write_run
from ray_jobs.checkpoint.store import open_store
from tasks.events import NodeEvent, publish
from tasks.jobs import Cluster
from tasks.node import RunContext, prefect_task, task_of
from tasks.plan import HIT, Plan, make_plan
from tasks.selection import Selection, select

CANCELLATION_SECONDS = 2.0
MAX_NODES_AT_ONCE = 8


@flow(
    name="build-model",
    flow_run_name=lambda: Path(runtime.flow_run.parameters["recipe"]).stem,
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_NODES_AT_ONCE),  # type: ignore[arg-type]  # invariant in its future
    persist_result=False,
    log_prints=False,
)
def build_model(
    recipe: str = "demo",
    store: str | None = None,
    overrides: list[str] | None = None,
    selection: Selection | None = None,
    address: str | None = None,
    refresh: bool = False,
) -> State:
    """Runs a recipe's graph: every node that has no checkpoint yet, and nothing else.

    Args:
        recipe: A recipe's name, or the path of a YAML file that the worker can read.
        store: Where checkpoints are: s3://bucket/prefix or file:///folder. Default: HEADRACE_STORE, ./.headrace/store.
        overrides: Changed fields, such as `pretrain.model.layers=4`.
        selection: Which part of the graph to run.
        address: A Ray cluster's http://head:8265. Default: HEADRACE_RAY_ADDRESS, then the embedded head.
        refresh: Look at the crawl anew instead of reusing its pinned listing.
    """
    return run_recipe(recipe, store, overrides, selection, address, refresh)


def run_recipe(
    recipe: str,
    store: str | None,
    overrides: list[str] | None,
    selection: Selection | None,
    address: str | None,
    refresh: bool,
) -> State:
    """What every flow over a recipe's graph does: plan, run in parallel what does not stand, write the run's record."""
    from tasks.defaults import ray_address, store_url

    began = time.time()
    loaded, at = load_recipe(recipe, overrides or ()), open_store(store or store_url())
    require_create_only(at)
    flow_run_id = str(runtime.flow_run.id)
    keys = make_plan(loaded, at, refresh)
    with relied_on(keys, began) as run_id, watching_for_cancellation(flow_run_id) as cancelled:
        plan = make_plan(loaded, at)
        chosen = select(plan, selection or Selection())
        get_run_logger().info("store %s, %d of %d nodes to run", at.url, len(chosen.to_run), len(plan.nodes))
        context = RunContext(
            store=plan.store,
            cluster=Cluster(address or ray_address()),
            recipe=plan.recipe.name,
            cancelled=cancelled.is_set,
            metadata={"flow_run": flow_run_id, "recipe": plan.recipe.name},
        )
        try:
            _run_nodes(plan, chosen.nodes, context)
        except KeyboardInterrupt:  # Ctrl-C stops the jobs; SIGTERM leaves them for the next run to attach to
            cancelled.set()
            raise
        run = run_record(plan, context, run_id, began, flow_run_id, cancelled.is_set())
        write_run(at, run)
    if cancelled.is_set():
        return Cancelled(message="cancelled; what is finished stays")
    failed = [name for name, node in run.nodes.items() if node.state == "FAILED"]
    if failed:
        return Failed(message=f"{failed[0]}: {run.nodes[failed[0]].error}")
    return Completed(message=f"run {run.id}: {len(run.nodes)} nodes")


def _run_nodes(plan: Plan, names: list[str], context: RunContext) -> None:
    """Runs the named nodes as their inputs get ready, and waits for all."""
    futures: dict[str, PrefectFuture] = {}
    for name in names:
        node = plan.nodes[name]
        upstream = [futures[other] for other in set(node.recipe_node.inputs.values()) if other in futures]
        futures[name] = prefect_task(node, dict(plan.nodes), context).submit(wait_for=upstream, return_state=False)
    for name, future in futures.items():
        future.wait()
        if future.state.is_pending():  # its inputs failed
            publish(NodeEvent(name, "SKIPPED", "an input is missing"))


@contextmanager
def relied_on(plan: Plan, began: float) -> Iterator[str]:
    """A run's id, under which garbage collection leaves the plan's nodes alone; what stands is looked up under it."""
    run_id = new_run_id(plan.recipe.name, began)
    standing = [
        NodePath(kind, key).root for node in plan.nodes.values() for kind, key in node.recipe_node.standing.values()
    ]
    begin_run(plan.store, run_id, [*(node.path.root for node in plan.nodes.values()), *standing])
    try:
        yield run_id
    finally:
        end_run(plan.store, run_id)


def run_record(
    plan: Plan, context: RunContext, run_id: str, began: float, flow_run_id: str | None, cancelled: bool
) -> Run:
    """What the run did, for `runs/` in the store."""
    nodes: dict[str, RunNode] = {}
    for name, node in plan.nodes.items():
        manifest = context.results.get(name) or (node.manifest if node.state == HIT else None)
        hit = node.state == HIT
        failure, error = context.failures.get(name, ("SKIPPED", ""))
        nodes[name] = RunNode(
            node=node.kind,
            key=node.key,
            payload=node.payload,
            state="HIT" if hit else "DONE" if manifest else failure,
            seconds=manifest.seconds if manifest and not hit else 0.0,
            cpu_seconds=manifest.cpu_seconds if manifest and not hit else 0.0,
            gpu_seconds=manifest.gpu_seconds if manifest and not hit else 0.0,
            headline=task_of(node.kind).headline(manifest) if manifest else "",
            error=error,
        )
    failed = any(node.state == "FAILED" for node in nodes.values())
    return Run(
        id=run_id,
        recipe=plan.recipe.name,
        overrides=plan.recipe.overrides,
        started=began,
        seconds=round(time.time() - began, 3),
        state="CANCELLED" if cancelled else "FAILED" if failed else "COMPLETED",
        nodes=nodes,
        flow_run=flow_run_id,
    )


@contextmanager
def watching_for_cancellation(flow_run_id: str) -> Iterator[threading.Event]:
    """An event that is set when the run is cancelled in the UI: a flow that no worker started gets no signal for it."""
    cancelled, finished = threading.Event(), threading.Event()

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while not finished.wait(CANCELLATION_SECONDS):
                try:
                    state = client.read_flow_run(UUID(flow_run_id)).state
                except OSError:  # the server is away for a moment; it decides nothing else
                    continue
                if state is not None and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                    cancelled.set()
                    return

    thread = threading.Thread(target=watch, name="cancellation", daemon=True)
    thread.start()
    try:
        yield cancelled
    finally:
        finished.set()


def process_tags() -> list[str]:
    """By what a later run knows that this process is gone."""
    return [f"host:{socket.gethostname()}", f"process:{os.getpid()}-{process_started(os.getpid())}"]


def mark_crashed_runs() -> list[str]:
    """Marks runs of our flows as Crashed whose process on this machine is gone; returns their names."""
    host = f"host:{socket.gethostname()}"
    marked = []
    with get_client(sync_client=True) as client:
        for run in _running_flow_runs(client, host):
            process = next((tag.removeprefix("process:") for tag in run.tags if tag.startswith("process:")), "")
            pid, _, started = process.partition("-")
            if pid.isdigit() and process_started(int(pid)) != started:
                client.set_flow_run_state(run.id, Crashed(message="its process is gone"), force=True)
                marked.append(run.name)
    return marked


def _running_flow_runs(client: SyncPrefectClient, tag: str) -> list[FlowRun]:
    state = {"type": {"any_": ["RUNNING", "CANCELLING"]}}
    filters: dict[str, Any] = {"state": state, "tags": {"all_": ["headrace", tag]}}
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(filters))
