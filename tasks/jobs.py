"""A node's work as a Ray job: submitted under a stable id, attached to when it already runs, watched to its manifest.

The job's SUCCEEDED is never the result; only the manifest is.
"""

import contextlib
import hashlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from configs.base import Resources
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.lease import read_lease
from ray_jobs.checkpoint.manifest import Manifest, missing_outputs, read_manifest
from ray_jobs.checkpoint.store import Store
from tasks import local
from tasks.failures import JobFailed, Stopped

MANIFEST_SECONDS = 0.25
STATUS_SECONDS = 1.0
LOG_SECONDS = 2.0
# Lost heads and killed drivers, each followed by a new submission.
INFRASTRUCTURE_TRIES = 5
# A driver that ended by itself with these said why (see ray_jobs/__main__.py): trying again cannot help.
EXIT_USER_ERROR, EXIT_NODE_FAILED = 2, 3
_LOST = (ConnectionError, requests.exceptions.RequestException, TimeoutError)


@dataclass(frozen=True)
class Cluster:
    """Where jobs go: the embedded head, started and restarted as needed, or a cluster by its address."""

    address: str | None = None
    """http://head:8265 of a cluster; None is the local head."""

    def client(self) -> JobSubmissionClient:
        """Raises RuntimeError (nothing answers) or ConnectionError."""
        if self.address is not None:
            return JobSubmissionClient(self.address)
        head = local.ray_head()
        os.environ.update(head.environment)
        return JobSubmissionClient(head.url)

    def totals(self) -> dict[str, float]:
        """CPU, GPU and so on of the cluster as it is now; empty where it does not say: jobs are then not held back."""
        try:
            usage = _cluster_status(self.client())["data"]["clusterStatus"]["loadMetricsReport"]["usage"]
            return {name: float(total) for name, (_, total) in usage.items()}
        except (*_LOST, RuntimeError, LookupError, ValueError) as error:  # away, or its first report is not there yet
            logging.getLogger("headrace").info("the cluster does not say what it holds: %s", error)
            return {}

    def placement(self, resources: Resources) -> dict[str, float]:
        """What Ray is to reserve for the job's own process: all that the node takes, where it computes there.

        A cluster then puts it on a machine that has that free, and gives it GPUs of its own. The local head is one
        machine, and says first whether it has GPUs: a job for those that there are not would wait for good.
        """
        if resources.workers > 1:
            return {}
        if self.address is not None:
            return {"entrypoint_num_cpus": resources.cpus, "entrypoint_num_gpus": resources.gpus}
        if resources.gpus and self.totals().get("GPU", 0.0) >= resources.gpus:
            return {"entrypoint_num_gpus": resources.gpus}
        return {}

    def entrypoint(self, node: str, spec_url: str) -> str:
        # A head started without the virtual environment on its PATH finds no `python`.
        python = sys.executable if self.address is None else "python"
        return shlex.join([python, "-m", "ray_jobs", node, spec_url])

    def keep(self) -> None:
        """Tells the local heads that they are in use."""
        if self.address is None:
            for service in local.running():
                local.touch(service.name)


@dataclass
class JobRequest:
    """One node for one cluster."""

    store: Store
    node: str
    """The node's kind."""
    payload: dict[str, Any]
    key: str
    resources: Resources
    inputs: dict[str, dict[str, str]]
    """Slot -> {node, key}."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Anyone who reaches the cluster can read it: names and ids only."""

    @property
    def path(self) -> NodePath:
        return NodePath(self.node, self.key)

    def submission_id(self, number: int) -> str:
        store8 = hashlib.sha256(self.store.url.encode()).hexdigest()[:8]
        return f"{store8}-{self.node}-{self.key[:16]}-{number}"


@dataclass(frozen=True)
class Watcher:
    """What the caller sees of a job while it runs."""

    progress: Callable[[dict[str, Any]], None] = lambda progress: None
    log: Callable[[str], None] = lambda line: None
    cancelled: Callable[[], bool] = lambda: False


def run_job(request: JobRequest, cluster: Cluster, watcher: Watcher) -> Manifest:
    """Runs the node to its manifest: attaches to its job if one runs, else submits one.

    Raises:
        JobFailed: the job said that it cannot finish, or infrastructure was lost too often.
        Stopped: `watcher.cancelled()` became true; the job was stopped.
    """
    losses: list[str] = []
    while True:
        try:
            client = cluster.client()
            submission = submit_or_attach(client, request, cluster, watcher)
            manifest = _watch(client, submission, request, cluster, watcher)
            if manifest is not None:
                return manifest
            losses.append("its driver was killed")
        except _LOST as error:
            losses.append(f"the Ray head was lost ({type(error).__name__})")
        watcher.log(f"{request.node}: {losses[-1]}: submitting again ({len(losses)} of {INFRASTRUCTURE_TRIES})")
        if len(losses) >= INFRASTRUCTURE_TRIES:
            raise JobFailed(
                f"{request.node} lost its infrastructure {len(losses)} times ({'; '.join(losses)}): look at the head's "
                "memory and log, then run again; shards that are done stay done"
            )
        time.sleep(min(5.0, 0.5 * 2 ** len(losses)))


def submit_or_attach(client: JobSubmissionClient, request: JobRequest, cluster: Cluster, watcher: Watcher) -> str:
    """The submission id of the node's running job: the one that runs already, or a new one."""
    number = 1
    while True:
        submission = request.submission_id(number)
        status = _status(client, submission)
        if status is None:
            _write_request(request, submission)
            try:
                client.submit_job(
                    entrypoint=cluster.entrypoint(request.node, request.store.url_of(request.path.request(submission))),
                    submission_id=submission,
                    metadata={"node": request.node, "key": request.key[:16], **request.metadata},
                    **cluster.placement(request.resources),  # type: ignore[arg-type]  # none is a text
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                watcher.log(f"{request.node}: another run submitted the same node: attaching to its job {submission}")
            return submission
        if not status.is_terminal():
            watcher.log(f"{request.node}: attaching to job {submission}, which runs already")
            return submission
        number += 1


def stop_job(client: JobSubmissionClient, submission: str) -> None:
    with contextlib.suppress(*_LOST, RuntimeError):
        client.stop_job(submission)


def _cluster_status(client: JobSubmissionClient) -> Any:
    """Ray's own account of the cluster. The client has no call for it, but the address and the credentials."""
    response = client._do_request("GET", "/api/cluster_status")
    response.raise_for_status()
    return response.json()


def _write_request(request: JobRequest, submission: str) -> None:
    content = {
        "node": request.node,
        "version": request.payload["version"],
        "spec": request.payload["spec"],
        "inputs": request.inputs,
        "generation": request.payload["generation"],
        "resources": json.loads(request.resources.model_dump_json()),
        "submission": submission,
    }
    request.store.put(request.path.request(submission), json.dumps(content, indent=1).encode())


def _status(client: JobSubmissionClient, submission: str) -> JobStatus | None:
    details = _details(client, submission)
    return None if details is None else details.status


def _details(client: JobSubmissionClient, submission: str) -> JobDetails | None:
    """What Ray knows of the job; None when it knows of none (another head, or never submitted)."""
    try:
        return client.get_job_info(submission)
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            return None
        if isinstance(error, ConnectionError) or "50" in str(error)[:80]:
            raise ConnectionError(str(error)) from error
        raise


def _watch(
    client: JobSubmissionClient, submission: str, request: JobRequest, cluster: Cluster, watcher: Watcher
) -> Manifest | None:
    """The manifest; None when the job's driver was lost without saying why."""
    logs = LogStream(client, submission, watcher.log)
    next_status = next_log = next_keep = 0.0
    while True:
        manifest = _finished(request)
        if manifest is not None:
            logs.forward()
            return manifest
        now = time.monotonic()
        if watcher.cancelled():
            stop_job(client, submission)
            raise Stopped(f"{request.node} was cancelled; its finished shards stay")
        if now >= next_log:
            next_log = now + LOG_SECONDS
            logs.forward()
            lease = read_lease(request.store, request.path.lease)
            if lease is not None and lease.progress:
                watcher.progress(lease.progress)
        if now >= next_keep:
            next_keep = now + 30
            cluster.keep()
        if now >= next_status:
            next_status = now + STATUS_SECONDS
            details = _details(client, submission)
            if details is None:
                return None
            if details.status.is_terminal():
                if _finished(request) is not None:
                    continue
                logs.forward()
                if details.status == JobStatus.STOPPED:
                    raise Stopped(f"job {submission} was stopped; its finished shards stay: run again to go on")
                if _was_killed(details):
                    return None
                raise JobFailed(_reason(logs.text, details))
        time.sleep(MANIFEST_SECONDS)


def _finished(request: JobRequest) -> Manifest | None:
    """The manifest, once its outputs are there too: a damaged one stands until the job withdraws it."""
    manifest = read_manifest(request.store, request.path)
    return None if manifest is None or missing_outputs(request.store, manifest) else manifest


def _was_killed(details: JobDetails) -> bool:
    """Whether the driver ended by a signal or with its node, and not by its own decision."""
    code = details.driver_exit_code
    return code is None or code < 0 or code > 128


def _reason(log: str, details: JobDetails) -> str:
    lines = log.strip().splitlines()
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        return "\n".join([lines[errors[-1]].removeprefix("error: "), *lines[errors[-1] + 1 :]])
    return f"{details.message or 'the job failed'}\n" + "\n".join(lines[-30:])


class LogStream:
    """Forwards what is new in a job's log, line by line."""

    def __init__(self, client: JobSubmissionClient, submission: str, sink: Callable[[str], None]):
        self._client, self._submission, self._sink = client, submission, sink
        self._seen = 0
        self.text = ""

    def forward(self) -> None:
        with contextlib.suppress(*_LOST, RuntimeError):  # the job's end decides, not its log
            self.text = self._client.get_job_logs(self._submission)
        end = self.text.rfind("\n") + 1
        for line in self.text[self._seen : end].splitlines():
            self._sink(line)
        self._seen = max(self._seen, end)
