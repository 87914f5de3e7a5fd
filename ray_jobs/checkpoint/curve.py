"""The curve of a node as it stands in the store: JSON lines by rising step, each step once, also while training runs.

Every session of a training writes its lines under attempts/<session>/ (`cluster.output.MetricsLog`). The receipt of a
training checkpoint names the sessions whose work it is; a finished node has the whole curve as metrics.jsonl.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray_jobs.checkpoint.checkpoint import read_checked
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import read_manifest
from ray_jobs.checkpoint.store import Entry, Store

CURVE = "metrics.jsonl"
Line = dict[str, Any]


@dataclass(frozen=True)
class Segment:
    """A stretch of the curve: the lines with first < step <= last, which one session wrote."""

    session: str
    first: int
    last: int


@dataclass(frozen=True)
class Curve:
    lines: tuple[Line, ...]
    sure: int
    """Up to this step a checkpoint stands. Lines behind it may be taken back: where their session dies, the next one
    takes these steps again. Those before it only where training goes back after a loss spike."""
    finished: bool


def standing_curve(store: Store, path: NodePath) -> Curve:
    """What there is of the curve now; no lines where the node has not begun."""
    manifest = read_manifest(store, path)
    if manifest is not None:
        files = [file for file in manifest.outputs if file.name == CURVE]
        lines = [line for file in files for line in _parsed(read_checked(store, file))]
        return Curve(tuple(lines), lines[-1]["step"] if lines else 0, True)
    step, segments = _newest_checkpoint(store, path)
    lines = lines_of(store, path, segments)
    session = _newest_session(store.list(f"{path.root}/attempts/"))
    if session is not None:
        lines += [line for line in session_lines(store, path, session) if line["step"] > step]
    return Curve(tuple(lines), step, False)


def lines_of(store: Store, path: NodePath, segments: Iterable[Segment]) -> list[Line]:
    """The lines of these segments, in order.

    A session's last lines may belong to steps that were lost with it and taken again by the next: each step is read
    from the session whose work it is.
    """
    return [
        line
        for segment in segments
        for line in session_lines(store, path, segment.session)
        if segment.first < line["step"] <= segment.last
    ]


def session_lines(store: Store, path: NodePath, session: str) -> list[Line]:
    """All that a session wrote and did not take back: after a loss spike it takes some steps once more."""
    chunks = [entry.path for entry in store.list(path.attempt(session, "")) if _is_chunk(entry.path)]
    lines: list[Line] = []
    for line in (line for chunk in chunks for line in _parsed(store.get(chunk) or b"")):
        while lines and lines[-1]["step"] >= line["step"]:
            lines.pop()
        lines.append(line)
    return lines


def _newest_checkpoint(store: Store, path: NodePath) -> tuple[int, list[Segment]]:
    """Its step, and which sessions it is the work of; 0 and none before the first."""
    for entry in sorted(store.list(path.receipts("steps")), key=lambda entry: entry.path, reverse=True):
        data = store.get(entry.path)
        if data is not None:  # else deleted since it was listed
            receipt = json.loads(data)
            return receipt["step"], [Segment(**segment) for segment in receipt["state"]["segments"]]
    return 0, []


def _newest_session(entries: Iterable[Entry]) -> str | None:
    chunks = [entry for entry in entries if _is_chunk(entry.path)]
    newest = max(chunks, key=lambda entry: entry.modified, default=None)
    return None if newest is None else newest.path.split("/")[-2]


def _is_chunk(path: str) -> bool:
    return path.rpartition("/")[2].startswith("metrics-")


def _parsed(data: bytes) -> list[Line]:
    return [json.loads(line) for line in data.decode().splitlines() if line]
