"""A server of a small model for the tests that only ask it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.tiny import Serving, serving, write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path) -> Iterator[Serving]:
    with serving(tiny_model) as server:
        yield server
