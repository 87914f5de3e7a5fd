"""A served model as a Ray job: submitted, watched until it answers, and stopped with the command that started it."""

import contextlib
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ray.job_submission import JobStatus, JobSubmissionClient

from configs.serve import ServeSpec
from tasks import local
from tasks.defaults import ray_address
from tasks.jobs import Cluster, LogStream, stop_job

KEYS_VARIABLE = "HEADRACE_API_KEYS"
POLL_SECONDS = 0.5
KEEP_SECONDS = 30.0
ERROR = "error: "
NOISE = ("Runtime env is setting up", "Running entrypoint for job")
"""What Ray says of every job."""
STOP_SECONDS = 30.0
"""Until a job that was told to stop is left to itself."""


def serve_on_ray(spec: ServeSpec, say: Callable[[str], None] = print) -> None:
    """Serves on the local Ray head, or on the cluster that HEADRACE_RAY_ADDRESS names, until SIGTERM or Ctrl-C.

    Raises:
        ValueError: the job ended by itself; its log was said.
    """
    cluster = Cluster(ray_address())
    with _keys_file(spec, cluster) as placed, _told_to_stop() as stop:
        client = cluster.client()
        submission = f"serve-{spec.port}-{secrets.token_hex(4)}"
        client.submit_job(
            entrypoint=_entrypoint(cluster, placed), submission_id=submission, metadata={"serves": "model"}
        )
        try:
            _watch(client, submission, cluster, say, stop)
        finally:
            _end(client, submission)


def _entrypoint(cluster: Cluster, spec: ServeSpec) -> str:
    python = sys.executable if cluster.address is None else "python"
    return shlex.join([python, "-m", "ray_jobs.serve", "ray", spec.model_dump_json()])


@contextlib.contextmanager
def _keys_file(spec: ServeSpec, cluster: Cluster) -> Iterator[ServeSpec]:
    """The spec with paths that hold in a job, and keys of the environment in a file: a job's own words can be read by
    everybody who reaches the cluster."""
    changes: dict[str, str] = {}
    if Path(spec.model).expanduser().exists():
        changes["model"] = str(Path(spec.model).expanduser().absolute())
    if spec.api_keys_file is not None:
        yield spec.model_copy(update={**changes, "api_keys_file": str(Path(spec.api_keys_file).absolute())})
        return
    keys = os.environ.get(KEYS_VARIABLE)
    if not keys:
        yield spec.model_copy(update=changes)
        return
    if cluster.address is not None:
        raise ValueError(f"{KEYS_VARIABLE} does not reach another cluster: name a file there by --api-keys-file")
    file = local.services_folder() / f"api-keys-{secrets.token_hex(4)}"
    file.touch(mode=0o600)
    file.write_text("\n".join(key.strip() for key in keys.split(",")) + "\n")
    try:
        yield spec.model_copy(update={**changes, "api_keys_file": str(file)})
    finally:
        file.unlink()


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    client: JobSubmissionClient,
    submission: str,
    cluster: Cluster,
    say: Callable[[str], None],
    stop: threading.Event,
) -> None:
    errors: list[str] = []

    def tell(line: str) -> None:
        if line.startswith(ERROR):
            errors.append(line.removeprefix(ERROR))
        elif not any(noise in line for noise in NOISE):
            say(line)

    logs, keep_at = LogStream(client, submission, tell), 0.0
    while not stop.wait(POLL_SECONDS):
        logs.forward()
        status = client.get_job_status(submission)
        if status.is_terminal():
            logs.forward()
            if status == JobStatus.STOPPED:
                return
            raise ValueError("".join(errors[-1:]) or "the server has ended: what it said last is why")
        if time.monotonic() >= keep_at:
            keep_at = time.monotonic() + KEEP_SECONDS
            cluster.keep()


def _end(client: JobSubmissionClient, submission: str) -> None:
    stop_job(client, submission)
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ConnectionError, RuntimeError):  # the head may be gone before us
        while not client.get_job_status(submission).is_terminal() and time.monotonic() < deadline:
            time.sleep(0.2)
