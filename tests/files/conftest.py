from pathlib import Path

import pytest

from ray_jobs.checkpoint.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")
