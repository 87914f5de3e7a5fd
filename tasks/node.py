"""How any node runs under Prefect, and what a person sees of it.

Each file beside this one gives a node's headline and facts; running it is the same for all: a HIT completes as
`Cached`, anything else becomes a Ray job whose log, progress and result are shown.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from configs.base import Spec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.admission import Admission
from tasks.events import NodeEvent, publish
from tasks.plan import HIT, PlannedNode

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Task

    from ray_jobs.checkpoint.store import Store
    from tasks.jobs import Cluster

PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class NodeTask:
    """What one kind of node shows, and how its work is estimated."""

    kind: str
    about: str
    """One line, shown in the UI."""
    headline: Callable[[Manifest], str]
    """The node's result in a few words."""
    facts: Callable[[Manifest], list[tuple[str, str]]]
    """Five to eight figures for the node's artifact."""
    flops: Callable[[Spec], float] | None = None
    """Floating-point operations, where they and not bytes make the time."""
    reads: Callable[[Spec, float], float] = lambda spec, size: size
    """Of so many bytes of input, as stored, those that the node reads: what its time is taken to grow with."""


def task_of(kind: str) -> NodeTask:
    """The file of the node: tasks/<kind>.py."""
    return importlib.import_module(f"tasks.{kind.replace('-', '_')}").NODE


@dataclass
class RunContext:
    """What the nodes of one run share."""

    store: "Store"
    cluster: "Cluster"
    recipe: str
    cancelled: Callable[[], bool]
    metadata: dict[str, str]
    results: dict[str, Manifest] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Node -> (FAILED or CANCELLED, what went wrong and what to do)."""
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self.cluster.totals)


def prefect_task(node: PlannedNode, planned: dict[str, PlannedNode], context: RunContext) -> "Task[[], Any]":
    """The node as a Prefect task without parameters: nothing is pickled, and Prefect's own cache is off."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    definition = task_of(node.kind)

    def body() -> Any:
        return run(definition, node, planned, context)

    return task(
        name=node.name,
        description=definition.about,
        task_run_name=f"{node.name} {node.key[:8]}",
        tags=["headrace", f"recipe:{context.recipe}", f"key:{node.key[:16]}"],
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=0,
    )(body)


def run(definition: NodeTask, node: PlannedNode, planned: dict[str, PlannedNode], context: RunContext) -> Any:
    """The body of the task: returns a Completed state named after how the node was had."""
    from prefect.states import Completed

    if node.state == HIT:
        assert node.manifest is not None
        manifest, state = node.manifest, "HIT"
    else:
        manifest, state = _compute(node, planned, context), "DONE"
    context.results[node.name] = manifest
    headline = definition.headline(manifest)
    publish(NodeEvent(node.name, state, headline, manifest=manifest))
    _leave_artifact(definition, node, manifest, context)
    return Completed(name="Cached" if state == "HIT" else "Completed", message=headline)


def _compute(node: PlannedNode, planned: dict[str, PlannedNode], context: RunContext) -> Manifest:
    from prefect.artifacts import create_progress_artifact, update_progress_artifact
    from prefect.logging import get_run_logger

    from tasks.failures import Stopped
    from tasks.jobs import JobRequest, Watcher, run_job

    log = get_run_logger()
    request = JobRequest(
        store=context.store,
        node=node.kind,
        payload=node.payload,
        key=node.key,
        resources=node.recipe_node.resources,
        inputs={
            slot: {"node": planned[upstream].kind, "key": planned[upstream].key}
            for slot, upstream in node.recipe_node.inputs.items()
        }
        | {
            slot: {"node": kind, "key": node.payload["inputs"][slot]}
            for slot, (kind, _) in node.recipe_node.standing.items()
        },
        metadata=context.metadata,
    )
    # Typed as "an id or a coroutine": a task that is not async gets the id.
    key = f"{context.recipe}-{node.name}-progress"
    bar = cast("UUID", create_progress_artifact(0.0, key=key, description="waiting for its job"))
    shown_at = 0.0

    def show(progress: dict[str, Any]) -> None:
        nonlocal shown_at
        publish(NodeEvent(node.name, "RUNNING", progress=progress))
        if time.monotonic() - shown_at > PROGRESS_SECONDS and progress.get("total"):
            shown_at = time.monotonic()
            share = min(100.0, 100.0 * progress["done"] / progress["total"])
            text = f"{progress['done']:,.0f} of {progress['total']:,.0f} {progress['unit']}"
            update_progress_artifact(bar, share, description=text)

    try:
        with context.admission.admitted(request.resources, context.cancelled):
            publish(NodeEvent(node.name, "RUNNING"))
            log.info("%s %s: %s", node.state, node.path.root, "; ".join(node.why))
            manifest = run_job(request, context.cluster, Watcher(show, log.info, context.cancelled))
    except Exception as error:
        state = "CANCELLED" if isinstance(error, Stopped) else "FAILED"
        context.failures[node.name] = (state, str(error))
        publish(NodeEvent(node.name, state, str(error)))
        raise
    update_progress_artifact(bar, 100.0, description=f"done in {manifest.seconds:.1f} s")
    return manifest


def _leave_artifact(definition: NodeTask, node: PlannedNode, manifest: Manifest, context: RunContext) -> None:
    from prefect.artifacts import create_markdown_artifact

    rows = [
        *definition.facts(manifest),
        ("time", f"{manifest.seconds:.1f} s, {manifest.cpu_seconds:.1f} CPU-seconds"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    create_markdown_artifact(
        f"## {node.name}: {definition.headline(manifest)}\n\n{definition.about}\n\n| | |\n|---|---|\n{table}\n\n"
        f"Checkpoint `{manifest.path.root}`, content `{manifest.content_digest[:16]}`. Why it ran: "
        f"{'; '.join(node.why) or 'it stood already'}.\n",
        key=f"{context.recipe}-{node.name}",
        description=definition.headline(manifest),
    )


def count(value: float, unit: str = "") -> str:
    """1,803 documents."""
    return f"{value:,.0f} {unit}".rstrip()


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"


def all_metrics(manifest: Manifest) -> list[tuple[str, str]]:
    """Every metric of the manifest as a row."""
    return [(name.replace("_", " "), figure(value)) for name, value in manifest.metrics.items()]


def figure(value: float | int | str) -> str:
    """1,803 or 0.8533 or as it is."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
