"""Drives the real command line against real services, and kills what it runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.store import open_store

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


class Headrace:
    """One home (its services) and one store."""

    def __init__(self, home: Path, store: str, environment: Mapping[str, str]):
        self.home, self.store_url = home, store
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_", "RAY_"))}
        self.environment = {**clean, **environment, "HEADRACE_HOME": str(home), "HEADRACE_STORE": store}

    def command(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    def json(self, *arguments: str, timeout: float = 300) -> Any:
        """The command's JSON. A non-zero exit is an AssertionError with what it printed."""
        done = self.command(*arguments, "--json", timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.home / "started.log").open("ab")
        return subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def digests(self, run: Mapping[str, Any]) -> dict[str, str]:
        """Node -> content digest of a run's JSON."""
        return {name: self.manifest(node["node"], node["key"]).content_digest for name, node in run["nodes"].items()}

    def manifest(self, node: str, key: str) -> Manifest:
        manifest = read_manifest(open_store(self.store_url), NodePath(node, key))
        assert manifest is not None, f"{node} {key[:16]} is not done"
        return manifest

    def processes(self, wanted: Callable[[str], bool]) -> list[int]:
        """Pids of this home's Ray processes whose command line is `wanted`."""
        mark = f"HEADRACE_KEEPALIVE={self.home}/".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                environment = (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in environment and wanted(line):
                found.append(int(folder.name))
        return found

    def down(self) -> None:
        self.command("down", timeout=60)


def is_driver(line: str) -> bool:
    return "-m ray_jobs " in line and "/bin/sh" not in line


def is_worker(line: str) -> bool:
    return line.startswith("ray::work_on")


def is_head(line: str) -> bool:
    return "gcs_server" in line.split(" ")[0]


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")
