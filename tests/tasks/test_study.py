"""`headrace scaling-study`: the grid that a recipe stands for, before it runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app


def invoked(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["scaling-study", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


def test_the_plan_has_every_run_with_its_size_and_budget(store: str) -> None:
    plan = json.loads(invoked("scaling", "--plan", "--json", "--store", store))
    assert len(plan["grid"]) == 12
    for run in plan["grid"]:
        assert plan["nodes"][run["node"]]["node"] == "pretrain" and run["state"] == "RUN"
        budget = float(run["name"].rpartition("-")[2])
        assert run["flops"] == pytest.approx(budget, rel=0.025)
        assert run["tokens"] == run["steps"] * 1024
    assert plan["nodes"]["scaling"]["estimate"]["seconds"] > 0


def test_the_plan_reads_well(store: str) -> None:
    shown = invoked("--plan", "--store", store, "--set", "scaling.leave_out=[]")
    assert "learning rate" in shown and "to run in about" in shown
    told = CliRunner().invoke(app, ["scaling-study", "--help"]).output
    assert "Example: headrace scaling-study" in told and "isoFLOP" in told


def test_a_recipe_without_a_study_is_refused(store: str) -> None:
    with pytest.raises(ValueError, match="recipe tiny has 0 nodes of kind scaling: name a recipe with one"):
        invoked("tiny", "--plan", "--store", store)
