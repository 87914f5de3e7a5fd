"""Fixtures of all tests: the real data, stores on files and on a real S3 server."""

import os
from pathlib import Path

import pytest

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing_data:
        terminalreporter.write_line(f"{len(_missing_data)} tests were skipped for want of HEADRACE_DATA", yellow=True)
