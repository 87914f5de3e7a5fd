"""Data flows one way: flows -> tasks -> (a Ray job) -> ray_jobs.<room> -> ray_jobs.checkpoint, configs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(folder.name for folder in (ROOT / "ray_jobs").iterdir() if (folder / "__init__.py").exists())
STAGE_ROOMS = [room for room in ROOMS if room not in {"checkpoint", "cluster"}]
# Other rooms build on these.
SHARED_ROOMS = {"files", "model", "inference", "tokenizer"}


def imports_of(file: Path) -> set[str]:
    """Every module of ours that the file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"flows", "tasks", "ray_jobs", "configs"}}


def offenders(folder: str, allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(imports_of(file))
        if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)
    ]


def test_configs_import_only_configs() -> None:
    assert offenders("configs", ("configs",)) == []


def test_checkpoint_knows_no_other_room() -> None:
    assert offenders("ray_jobs/checkpoint", ("configs", "ray_jobs.checkpoint")) == []


def test_cluster_knows_no_stage_room() -> None:
    assert offenders("ray_jobs/cluster", ("configs", "ray_jobs.checkpoint", "ray_jobs.cluster")) == []


@pytest.mark.parametrize("room", STAGE_ROOMS)
def test_stage_rooms_do_not_import_one_another(room: str) -> None:
    shared = tuple(f"ray_jobs.{other}" for other in sorted(SHARED_ROOMS & set(ROOMS)))
    allowed = ("configs", "ray_jobs.checkpoint", "ray_jobs.cluster", f"ray_jobs.{room}", *shared)
    assert offenders(f"ray_jobs/{room}", allowed) == []


def test_tasks_import_only_checkpoint_of_ray_jobs() -> None:
    assert offenders("tasks", ("configs", "tasks", "ray_jobs.checkpoint")) == []


def test_flows_import_only_tasks_and_checkpoint() -> None:
    assert offenders("flows", ("configs", "flows", "tasks", "ray_jobs.checkpoint")) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("flows.cli", ("torch", "ray", "prefect", "transformers", "boto3", "pyarrow")),
        ("tasks.plan", ("torch", "ray", "prefect", "transformers", "boto3", "pyarrow")),
        ("tasks.jobs", ("torch", "transformers")),
        ("flows.build_model", ("torch", "transformers")),
        ("ray_jobs.__main__", ("torch", "transformers", "prefect", "ray")),
    ],
)
def test_light_modules_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(sorted(set({heavy!r}) & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
