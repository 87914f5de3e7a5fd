"""One home with its Prefect server and Ray heads for all end-to-end tests, and an undisturbed run to compare with."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Headrace
from tests.s3_server import S3Server

# Archives enough for a kill to fall between their receipts.
SLOWED = ["--set", "snapshot.documentation.num_operations=600", "--set", "snapshot.documentation.num_files=24"]
DATA_NODES = [*SLOWED, "--set", "filter.resources={workers: 2, shards_per_task: 1}", "--to", "scrub"]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    yield folder
    Headrace(folder, f"file://{folder}/unused", {}).down()


@pytest.fixture
def headrace(home: Path, tmp_path: Path) -> Headrace:
    """A new, empty store in a folder."""
    return Headrace(home, (tmp_path / "store").as_uri(), {})


@pytest.fixture
def headrace_on_s3(home: Path, s3_server: S3Server) -> Headrace:
    """A new, empty store on a real S3 server."""
    store = f"s3://{s3_server.bucket}/{secrets.token_hex(4)}"
    return Headrace(home, store, s3_server.environment)


@pytest.fixture(scope="session")
def undisturbed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Node -> content digest of the data nodes, run once without any fault."""
    headrace = Headrace(home, tmp_path_factory.mktemp("undisturbed").as_uri(), {})
    run: dict[str, Any] = headrace.json("run", "tiny", *DATA_NODES)
    return headrace.digests({"nodes": {n: node for n, node in run["nodes"].items() if node["state"] == "DONE"}})
