"""The curves of trainings, as they stand in the store, and what feeds them to another program's reader.

Nothing of this runs within training: its JSON lines are the one record, and TensorBoard, MLflow and W&B are fed from
them, here or on another machine, while training runs or years later. A writer that fails disturbs nobody.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ray_jobs.checkpoint.curve import Curve, Line, standing_curve
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import read_manifest
from ray_jobs.checkpoint.runs import Running, list_runs, read_run
from ray_jobs.checkpoint.store import Store

KINDS = ("pretrain",)
"""Nodes that leave a curve."""
NODE = re.compile(r"(?P<kind>[a-z][a-z0-9-]*)@(?P<key>[0-9a-f]{16,64})")
POLL_SECONDS = 5.0
"""Training writes its lines every 3 s and at each checkpoint."""


class CurveWriter(Protocol):
    takes_back: bool
    """Whether lines that were written can be taken back; one that cannot is given those that a checkpoint made sure."""

    def last_step(self) -> int:
        """Up to this step an earlier writer of the same curve has written; 0 where it is written anew."""

    def add(self, line: Line) -> None: ...

    def take_back(self, step: int) -> None:
        """Takes back what was written of this step and those after it."""

    def flush(self) -> None: ...

    def finish(self) -> None:
        """The curve has come to its end."""

    def close(self) -> None: ...


@dataclass
class Written:
    """How far a curve is written."""

    lines: list[Line]
    """In this writer's life."""
    after: int
    """Steps up to this one were written before."""


def curve_nodes(store: Store, what: str) -> list[NodePath]:
    """The nodes with a curve that `what` names: a run (its beginning, or "last"), under way or over; or one node, as
    pretrain@ and the 16 digits that a plan shows.

    Raises:
        ValueError: there is no such run, or it has no such node.
    """
    match = NODE.fullmatch(what)
    if match is not None:
        return [NodePath(match["kind"], match["key"])]
    folders = _folders(store, what)
    nodes = [NodePath(kind, key) for kind, key in folders if kind in KINDS]
    if not nodes:
        raise ValueError(f"run {what} of {store.url} has no node that leaves a curve ({', '.join(KINDS)})")
    return nodes


def _folders(store: Store, run: str) -> list[tuple[str, str]]:
    """Kind and key of the run's nodes."""
    running = [entry.path.removeprefix("running/").removesuffix(".json") for entry in store.list("running/")]
    newest = max([*running, *list_runs(store)], default=None)
    wanted = newest if run == "last" else run
    under_way = [name for name in running if wanted is not None and name.startswith(wanted)]
    data = store.get(f"running/{under_way[0]}.json") if len(under_way) == 1 else None
    if data is None:  # it is over, or read_run says what is wrong
        return [(node.node, node.key) for node in read_run(store, run).nodes.values()]
    folders = [folder.split("/") for folder in Running.model_validate_json(data).nodes]
    return [(kind, key) for _, kind, key in folders]


def spec_of(store: Store, path: NodePath) -> dict[str, Any]:
    """The node's spec, by dotted names, from its manifest or the request that it is computed for."""
    manifest = read_manifest(store, path)
    if manifest is not None:
        return flattened(manifest.payload.get("spec", {}), ".")
    for entry in store.list(f"{path.root}/requests/"):
        data = store.get(entry.path)
        if data is not None:
            return flattened(json.loads(data)["spec"], ".")
    return {}


def flattened(fields: dict[str, Any], between: str, prefix: str = "") -> dict[str, Any]:
    """Fields of fields as fields of one name."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= flattened(value, between, f"{prefix}{name}{between}")
        else:
            found[f"{prefix}{name}"] = value
    return found


def numbers_of(line: Line) -> dict[str, float]:
    """The line's figures by name, such as `loss` and `heldout_bits_per_byte_by_domain/docs.python.org`; where a list
    holds one a layer, as `attention_entropy/07`."""
    found: dict[str, float] = {}
    for name, value in flattened(line, "/").items():
        values = {name: value}
        if isinstance(value, list):
            digits = len(str(len(value) - 1))
            values = {f"{name}/{place:0{digits}d}": one for place, one in enumerate(value)}
        found |= {
            one: number
            for one, number in values.items()
            if isinstance(number, int | float) and not isinstance(number, bool) and one not in {"step", "time"}
        }
    return found


def bring_up_to_date(curve: Curve, writer: CurveWriter, written: Written) -> int:
    """Writes what is new, and takes back what is no more. Returns how many lines were written."""
    lines = list(curve.lines)
    if not writer.takes_back:
        lines = [line for line in lines if line["step"] <= curve.sure]
        last = written.lines[-1]["step"] if written.lines else written.after
        new = [line for line in lines if line["step"] > last]
    else:
        lines = [line for line in lines if line["step"] > written.after]
        same = 0
        while same < min(len(lines), len(written.lines)) and lines[same] == written.lines[same]:
            same += 1
        if same < len(written.lines):
            writer.take_back(written.lines[same]["step"])
            del written.lines[same:]
        new = lines[same:]
    for line in new:
        writer.add(line)
    written.lines += new
    writer.flush()
    return len(new)


def feed(
    store: Store,
    path: NodePath,
    writer: CurveWriter,
    follow: bool,
    told: Callable[[Curve, int], None] = lambda curve, new: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Gives the writer the curve; with `follow` until it has come to its end.

    Args:
        told: called with the curve and the number of lines that were new.
    """
    written = Written([], writer.last_step())
    try:
        while True:
            curve = standing_curve(store, path)
            told(curve, bring_up_to_date(curve, writer, written))
            if curve.finished:
                writer.finish()
            if curve.finished or not follow:
                return
            sleep(POLL_SECONDS)
    finally:
        writer.close()
