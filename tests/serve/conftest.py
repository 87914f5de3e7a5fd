"""A server of a small model for the tests that only ask it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.serve.tiny import Serving, serving, write_model


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The model is too small for two, which would wait for each other beside the server's and the client's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path) -> Iterator[Serving]:
    with serving(tiny_model) as server:
        yield server
