"""Run records: which recipe gave which checkpoints, when, and what it cost."""

import secrets
import time
from collections.abc import Iterable
from typing import Any

from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store


class RunNode(Record):
    """One node of a run."""

    node: str
    key: str
    payload: dict[str, Any]
    state: str
    """HIT, DONE, FAILED or SKIPPED."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    headline: str = ""
    error: str = ""


class Run(Record):
    id: str
    """Sorts by start time."""
    recipe: str
    overrides: tuple[str, ...] = ()
    started: float
    seconds: float
    state: str
    """COMPLETED, FAILED or CANCELLED."""
    nodes: dict[str, RunNode]
    flow_run: str | None = None


def new_run_id(recipe: str, started: float) -> str:
    """Sorts by start time (UTC); `started` is in seconds since 1970."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))}-{recipe}-{secrets.token_hex(2)}"


class Running(Record):
    """A run under way. Garbage collection leaves alone what it names, and all that reaches."""

    id: str
    nodes: tuple[str, ...]
    """Folders of its nodes, as `NodePath.root` names them."""


def begin_run(store: Store, run_id: str, nodes: Iterable[str]) -> None:
    """To be called before the run looks up which of its nodes are done; then none of them can be collected under it."""
    store.put(f"running/{run_id}.json", Running(id=run_id, nodes=tuple(nodes)).to_json())


def end_run(store: Store, run_id: str) -> None:
    """To be called once the run's record is written, or the run is given up."""
    store.delete([f"running/{run_id}.json"])


def write_run(store: Store, run: Run) -> None:
    store.create(f"runs/{run.id}.json", run.to_json())


def list_runs(store: Store) -> list[str]:
    """Ids, oldest first."""
    return [entry.path.removeprefix("runs/").removesuffix(".json") for entry in store.list("runs/")]


def read_run(store: Store, run_id: str) -> Run:
    """Raises ValueError when there is no such run; `run_id` may be any unambiguous beginning, or "last"."""
    ids = list_runs(store)
    found = ids[-1:] if run_id == "last" else [run_id] if run_id in ids else [i for i in ids if i.startswith(run_id)]
    if len(found) != 1:
        few = ", ".join((found or ids)[-5:]) or "none yet"
        raise ValueError(f"{store.url} has {len(found)} runs called {run_id!r}: name one of {few}")
    data = store.get(f"runs/{found[0]}.json")
    assert data is not None
    return Run.model_validate_json(data)


def last_run_of(store: Store, recipe: str) -> Run | None:
    """The newest run of the recipe, whatever its outcome."""
    for run_id in reversed(list_runs(store)):
        if "-".join(run_id.split("-")[2:-1]) == recipe:
            return read_run(store, run_id)
    return None
