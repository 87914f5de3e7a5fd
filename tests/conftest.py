"""Fixtures of all tests: the real data, stores on files and on a real S3 server."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from configs.nodes import NODES
from ray_jobs.checkpoint.store import Store, open_store
from tests.faults.toy_nodes import TOY_KINDS
from tests.s3_server import S3Server, running_s3_server

# First calls compile kernels, and CI machines are busy: how long an example takes says nothing.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")

_missing_data: list[str] = []


def _data_folder() -> Path | None:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HEADRACE_DATA", default))
    return folder if folder.is_dir() else None


@pytest.fixture
def data_dir(request: pytest.FixtureRequest) -> Path:
    """Real crawls, pages with gold and evaluation sets: HEADRACE_DATA, by default ../shared/data."""
    folder = _data_folder()
    if folder is None:
        _missing_data.append(request.node.nodeid)
        pytest.skip("needs the real data: set HEADRACE_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; its address and keys are in the environment of this session and of what it starts."""
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def s3_store_url(s3_server: S3Server) -> str:
    """A bucket on the real S3 server. Tests put their stores below prefixes of their own."""
    return f"s3://{s3_server.bucket}"


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder where fsync costs nothing, for tests that kill processes and no machines."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def s3_store(s3_store_url: str) -> Store:
    return open_store(f"{s3_store_url}/{secrets.token_hex(4)}")


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind in turn."""
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def toy_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that fail as they are told stand beside the real ones."""
    for kind in TOY_KINDS:
        monkeypatch.setitem(NODES, kind.name, kind)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing_data:
        terminalreporter.write_line(f"{len(_missing_data)} tests were skipped for want of HEADRACE_DATA", yellow=True)
