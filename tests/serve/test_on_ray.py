"""`headrace serve` on Ray Serve, as a user starts and stops it."""

import importlib.util
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ray_jobs.serve.metrics import Metrics, merged
from tests.end_to_end.harness import Headrace

KEY = {"Authorization": "Bearer first"}

needs_ray_serve = pytest.mark.skipif(
    importlib.util.find_spec("grpc_reflection") is None, reason="needs Ray Serve: pip install 'ray[serve]'"
)


def numbers(text: str) -> dict[str, float]:
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line and not line.startswith("#")
    }


def test_numbers_of_several_replicas_stand_apart() -> None:
    one, two = Metrics(), Metrics()
    one.requests.labels("/health", "200").inc(3)
    two.requests.labels("/health", "200").inc(5)
    two.token_seconds.observe(0.02)
    found = numbers(merged([("a", one.text()), ("b", two.text())]).decode())
    assert found['headrace_requests_total{path="/health",replica="a",status="200"}'] == 3
    assert found['headrace_requests_total{path="/health",replica="b",status="200"}'] == 5
    assert found['headrace_time_per_token_seconds_bucket{le="0.025",replica="b"}'] == 1
    assert found['headrace_time_per_token_seconds_bucket{le="0.025",replica="a"}'] == 0


@pytest.fixture(scope="module")
def headrace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headrace]:
    home = tmp_path_factory.mktemp("home")
    one = Headrace(home, (home / "store").as_uri(), {"HEADRACE_API_KEYS": "first,second"})
    yield one
    one.down()


def wait_until_ready(url: str, command: "subprocess.Popen[bytes]", seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert command.poll() is None
        try:
            if httpx.get(f"{url}/health", timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError("it was never ready")


@needs_ray_serve
@pytest.mark.slow
@pytest.mark.cluster
def test_replicas_on_ray_answer_alike_and_end_with_the_command(headrace: Headrace, tiny_model: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--name", "tiny", "--replicas", "2", "--cpus", "0.5", "--dtype", "fp32"]
    command = headrace.start("serve", str(tiny_model), *options)
    try:
        wait_until_ready(url, command)
        body: dict[str, Any] = {"model": "tiny", "prompt": "the mill", "max_tokens": 20, "seed": 3}
        assert httpx.post(f"{url}/v1/completions", json=body).status_code == 401
        with httpx.Client(headers=KEY, timeout=60) as client:
            texts = {client.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"] for _ in range(12)}
            assert len(texts) == 1
            bad = client.post(f"{url}/v1/completions", json={**body, "max_tokens": 0})
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "max_tokens")
            long = {**body, "n": 30, "max_tokens": 240, "stream": True}
            with client.stream("POST", f"{url}/v1/completions", json=long) as stream:
                next(stream.iter_lines())
            deadline = time.monotonic() + 20
            while True:
                found = numbers(client.get(f"{url}/metrics").text)
                replicas = [value for name, value in found.items() if name.startswith("headrace_blocks_in_use{")]
                if len(replicas) == 2 and not any(replicas):
                    break
                assert time.monotonic() < deadline, found
                time.sleep(0.2)
            assert sum(value for name, value in found.items() if 'reason="cancelled"' in name) > 0
        second = headrace.command("serve", str(tiny_model), "--port", str(port + 1))
        assert second.returncode == 2 and "this cluster serves already" in second.stderr
        command.send_signal(signal.SIGTERM)
        assert command.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        assert not list((headrace.home / "services").glob("api-keys-*"))
        nothing = headrace.command("serve", "./nothing", "--port", str(port))
        assert nothing.returncode == 2 and "there is no folder ./nothing" in nothing.stderr
    finally:
        command.kill()
