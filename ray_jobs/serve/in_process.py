"""A server in this process, by uvicorn: one engine, no Ray."""

import contextlib
import socket

import uvicorn

from configs.serve import ServeSpec
from ray_jobs.serve.api_keys import ApiKeys, read_keys
from ray_jobs.serve.app import make_app
from ray_jobs.serve.building import make_service

STOP_SECONDS = 10
"""For answers under way, when the server is told to stop."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def serve(spec: ServeSpec) -> None:
    """Until SIGTERM or Ctrl-C.

    Raises:
        ValueError: the model cannot be served, the port is taken, or there are no keys where some are named.
    """
    keys = ApiKeys(read_keys(spec.api_keys_file))
    with bound(spec.host, spec.port) as listening:
        service, metrics = make_service(spec)
        app = make_app(service, keys, metrics)
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS, timeout_keep_alive=65, access_log=False
        )
        listening.listen()
        announce(spec, service.name, bool(keys))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again, once all is closed
            uvicorn.Server(config).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """Taken before the model is loaded, which takes a while."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ValueError(f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port") from error
    return listening


def announce(spec: ServeSpec, name: str, has_keys: bool) -> None:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    print(f"{name} at http://{host}:{spec.port}/v1 (health, metrics: /health, /metrics)", flush=True)
    if not has_keys and spec.host not in LOOPBACK:
        print("anyone who reaches this address may use it: give --api-keys-file", flush=True)
