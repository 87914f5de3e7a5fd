"""The services of a laptop: a Ray head and a Prefect server that outlive a command and stop by themselves.

Each is a child of a small keeper process (`python -m tasks.keeper`) in a session of its own, recorded under
`<home>/services/` with pid, start time and addresses. The next command finds and reuses it. HEADRACE_HOME says where
(default ./.headrace). Where PREFECT_API_URL is set, or a cluster is addressed, nothing is started in their place.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ray_jobs.checkpoint.lease import process_started

IDLE_SECONDS = 20 * 60
START_SECONDS = 90
# 127.0.0.1 is rewritten to the network card's address by Ray, and its clients then hang; the rest of 127/8 is not.
RAY_NODE_ADDRESS = "127.0.0.2"


@dataclass(frozen=True)
class Service:
    """A running service, as its record says."""

    name: str
    pid: int
    """Of its keeper."""
    process_started: str
    url: str
    environment: dict[str, str]
    """What a client must set to reach it."""


def home() -> Path:
    return Path(os.environ.get("HEADRACE_HOME", ".headrace")).absolute()


def services_folder() -> Path:
    folder = home() / "services"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ray_head() -> Service:
    """The local Ray head, started if need be. Raises RuntimeError with the end of its log when it does not come up."""
    # Jobs inherit the head's environment, credentials included: other credentials, another head.
    credentials = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    digest = hashlib.sha256(repr(credentials).encode()).hexdigest()[:6]
    return _ensure(f"ray-{digest}", _start_ray)


def prefect_server() -> Service:
    """The local Prefect server and its UI, started if need be."""
    return _ensure("prefect", _start_prefect)


def running() -> list[Service]:
    """The services of this home that run now."""
    found = (_alive(_read(file)) for file in sorted(services_folder().glob("*.json")))
    return [service for service in found if service is not None]


def stop(service: Service) -> None:
    """Ends the service by its keeper's pid and waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(service.pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _alive(service) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _alive(service):
        os.kill(service.pid, signal.SIGKILL)  # its child follows (PR_SET_PDEATHSIG)
    (services_folder() / f"{service.name}.json").unlink(missing_ok=True)


def touch(service_name: str) -> None:
    """Says that the service is in use; without that it stops after IDLE_SECONDS."""
    (services_folder() / f"{service_name}.used").touch()


def answers(url: str, headers: dict[str, str] | None = None, seconds: float = 2.0) -> bool:
    """Whether a GET of the URL is answered at all, whatever the status."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _ensure(name: str, start: Callable[[str, Path], Service]) -> Service:
    folder = services_folder()
    with _locked(folder / f"{name}.lock"):
        service = _alive(_read(folder / f"{name}.json"))
        if service is not None and answers(service.url, seconds=5):
            touch(name)
            return service
        if service is not None:
            stop(service)
        touch(name)
        service = start(name, folder)
        temporary = folder / f"{name}.json.new"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(service), indent=1))
        temporary.replace(folder / f"{name}.json")
        return service


def _start_ray(name: str, folder: Path) -> Service:
    ports = _free_ports(4)
    # Sockets live in it, and their paths must stay under 107 bytes.
    temporary = Path(tempfile.gettempdir()) / f"hr-{os.getuid()}-{secrets.token_hex(2)}"
    token_file = folder / "ray_token"
    if not token_file.exists():
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        f"--node-ip-address={RAY_NODE_ADDRESS}",
        f"--port={ports[0]}",
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={ports[1]}"),
        f"--dashboard-agent-listen-port={ports[2]}",
        f"--ray-client-server-port={ports[3]}",
        # Any free port: Ray's default range collides with servers, and with a second head.
        *("--min-worker-port=0", "--max-worker-port=0"),
        f"--temp-dir={temporary}",
        # Shards travel through the store, so little goes through shared memory.
        f"--object-store-memory={max(100 << 20, min(2 << 30, memory // 20))}",
    ]
    url = f"http://127.0.0.1:{ports[1]}"
    jobs = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONUNBUFFERED": "1",
        # Between SIGTERM and SIGKILL: in Ray's own 3 s a training cannot save a last checkpoint. Others end at once.
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        # A job touches it while it works, so that the head outlives the command that submitted the job.
        "HEADRACE_KEEPALIVE": str(folder / f"{name}.used"),
    }
    token = token_file.read_text()
    headers = {"Authorization": f"Bearer {token}"}
    return _start(name, folder, command, url, f"{url}/api/jobs/", environment, jobs, headers, str(temporary))


def _start_prefect(name: str, folder: Path) -> Service:
    port = _preferred_port(4200)
    environment = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    server = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    return _start(name, folder, command, url, f"{url}/api/health", environment, server, {})


def _start(
    name: str,
    folder: Path,
    command: list[str],
    url: str,
    probe: str,
    client_environment: dict[str, str],
    server_environment: dict[str, str],
    headers: dict[str, str],
    scratch: str = "-",
) -> Service:
    log = folder / f"{name}.log"
    keeper = [sys.executable, "-m", "tasks.keeper", str(folder / f"{name}.used"), str(IDLE_SECONDS), scratch, *command]
    dropped = {"RAY_ADDRESS", "PREFECT_API_URL", "RAY_JOB_ID"}
    inherited = {key: value for key, value in os.environ.items() if key not in dropped}
    with log.open("wb") as output:
        process = subprocess.Popen(
            keeper,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, **client_environment, **server_environment},
            start_new_session=True,
        )
    started = process_started(process.pid) or ""
    service = Service(name, process.pid, started, url, client_environment)
    deadline = time.monotonic() + START_SECONDS
    while not answers(probe, headers):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(service)
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the local service {name} did not come up; its log {log} ends with:\n{end}")
        time.sleep(0.1)
    return service


def _read(file: Path) -> Service | None:
    try:
        return Service(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _alive(service: Service | None) -> Service | None:
    if service is None or process_started(service.pid) != service.process_started:
        return None
    return service


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _preferred_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return _free_ports(1)[0]
    return port
