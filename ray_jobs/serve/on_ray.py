"""A model on Ray Serve: replicas, each with an engine of its own, behind one address; more of them as requests come.

One Ray cluster serves one model this way. Every replica is the whole application, so that what a client gets does not
depend on which one answers; only /metrics asks all of them.
"""

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

from configs.serve import ReplicasSpec, ServeSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.inference.loading import found
from ray_jobs.serve.api_keys import ApiKeys, read_keys
from ray_jobs.serve.in_process import announce

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("headrace")

APPLICATION, DEPLOYMENT = "headrace", "model"
ONGOING = 10_000
"""Requests that Ray lets through to a replica at once: the replica itself refuses what its queue does not hold, with
the answer that OpenAI's clients understand."""
STOP_SECONDS = 10
"""For answers under way, when a replica is told to stop."""


def serve_on_ray(spec: ServeSpec) -> None:
    """Until SIGTERM or Ctrl-C; to be called as a Ray job, or where RAY_ADDRESS says which cluster.

    Raises:
        ValueError: Ray Serve is not installed, the cluster serves already, or the replicas did not come up.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ValueError(f"Ray Serve is not installed ({error}): pip install 'ray[serve]', or give --no-ray") from error
    import ray

    keys = _keys(spec)
    found(spec.model, None if spec.store is None else open_store(spec.store))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ray.init(logging_level=logging.WARNING, log_to_driver=False)
    serving = serve.status().applications
    if serving:
        raise ValueError(
            f"this cluster serves already ({', '.join(serving)}): end that `headrace serve` first, or give --no-ray"
        )
    try:
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        http = {"host": spec.host, "port": spec.port}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
        try:
            serve.run(application(spec), name=APPLICATION, route_prefix="/", logging_config=quiet)
        except RuntimeError as error:
            raise ValueError(
                f"the replicas did not come up: {_reason(serve.status(), error)} (their logs are in Ray's dashboard)"
            ) from error
        announce(spec, spec.name or "the model", bool(keys))
        stop.wait()
        log.info("stopping")
    finally:
        serve.shutdown()


def _reason(status: Any, error: RuntimeError) -> str:
    """What the replica's own log says of it, in Ray's account."""
    application = status.applications.get(APPLICATION)
    deployment = None if application is None else application.deployments.get(DEPLOYMENT)
    said = str(error) if deployment is None else deployment.message
    lines = [line.strip() for line in said.splitlines() if "Error: " in line]
    return lines[-1] if lines else said


def application(spec: ServeSpec) -> Any:
    """The deployment, to be given to `serve.run`."""
    from ray import serve

    def build() -> "FastAPI":
        """In a replica, when it starts."""
        return replica_app(spec)

    @serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": spec.replicas.cpus, "num_gpus": _gpus(spec)},
        autoscaling_config=scaling(spec.replicas),
        max_ongoing_requests=ONGOING,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=STOP_SECONDS,
    )
    @serve.ingress(build)
    class Replica:
        def check_health(self) -> None:
            """Ray replaces a replica that fails it."""
            if self.app.state.service.loop.stopped:  # type: ignore[attr-defined]
                raise RuntimeError("the engine has stopped")

        def numbers(self) -> tuple[str, bytes]:
            """This replica's, and its metrics."""
            return serve.get_replica_context().replica_id.unique_id, self.app.state.metrics.text()  # type: ignore[attr-defined]

    return Replica.bind()  # type: ignore[attr-defined]


def replica_app(spec: ServeSpec) -> "FastAPI":
    """The application of one replica."""
    from ray import serve

    from ray_jobs.serve.app import make_app
    from ray_jobs.serve.building import make_service
    from ray_jobs.serve.metrics import merged

    logging.getLogger("headrace").setLevel(logging.INFO)
    service, metrics = make_service(spec)

    async def all_numbers() -> bytes:
        handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
        return merged(await handle.broadcast("numbers").results_async())

    return make_app(service, _keys(spec), metrics, all_numbers)


def _keys(spec: ServeSpec) -> ApiKeys:
    """Of the file only: the environment is that of whoever started the cluster."""
    return ApiKeys([] if spec.api_keys_file is None else read_keys(spec.api_keys_file))


def scaling(spec: ReplicasSpec) -> dict[str, Any]:
    """In Ray Serve's words."""
    return {
        "min_replicas": spec.min_replicas,
        "initial_replicas": max(1, spec.min_replicas),
        "max_replicas": spec.max_replicas,
        "target_ongoing_requests": spec.target_ongoing,
    }


def _gpus(spec: ServeSpec) -> float:
    import ray

    if spec.replicas.gpus is not None:
        return spec.replicas.gpus
    return 0 if spec.device == "cpu" or not ray.cluster_resources().get("GPU") else 1
