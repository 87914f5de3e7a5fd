"""A small scaling study through Prefect and Ray as a person runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.recipe import RECIPES
from tests.end_to_end.harness import Headrace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

STUDY = {
    "budgets": [4e9, 1.6e10],
    "sizes": {
        "10k": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 48},
        "20k": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64},
        "50k": {"hidden": 64, "layers": 1, "heads": 2, "intermediate": 96},
    },
    "leave_out": ["50k-4e9"],
    "pretrain": {"model": {"max_positions": 64}, "global_batch": 4, "sequence_length": 64},
    "rate_hidden": 64,
    "evaluate": {"max_documents": 5},
}
# Those of the recipe tiny that a training needs.
DATA_NODES = ("snapshot", "filter", "scrub", "tokenizer", "tokens")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    tiny = yaml.safe_load((RECIPES / "tiny.yaml").read_text())["nodes"]
    nodes = {**{name: tiny[name] for name in DATA_NODES}, "scaling": STUDY, "report": None}
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump({"nodes": nodes}, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def ran(home: Path, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Headrace, dict[str, Any]]:
    headrace = Headrace(home, tmp_path_factory.mktemp("store").as_uri(), {})
    return headrace, headrace.json("scaling-study", recipe, timeout=590)


def test_every_run_is_done_and_fitted(ran: tuple[Headrace, dict[str, Any]]) -> None:
    _, run = ran
    assert {node["state"] for node in run["nodes"].values()} == {"DONE"}
    assert len(run["grid"]) == len(run["findings"]["points"]) == 5
    law = run["findings"]["law"]
    assert law["num_runs"] == 5
    for point in run["findings"]["points"]:
        assert point["flops"] == pytest.approx(point["budget"], rel=0.025)
        assert point["predicted_loss"] == pytest.approx(point["loss"], rel=0.1)


def test_the_report_shows_the_study(ran: tuple[Headrace, dict[str, Any]]) -> None:
    _, run = ran
    page = Path(run["report"]).read_text()
    assert 'id="scaling"' in page and "Best size over compute" in page and 'id="training"' not in page


def test_what_stands_is_reused_by_either_flow_and_a_new_budget_adds_its_own_runs(
    ran: tuple[Headrace, dict[str, Any]], recipe: str
) -> None:
    headrace, _ = ran
    for command in ("run", "scaling-study"):
        assert {node["state"] for node in headrace.json(command, recipe)["nodes"].values()} == {"HIT"}
    more = headrace.json("scaling-study", recipe, "--plan", "--set", "scaling.budgets=[4.0e+9,1.6e+10,6.4e+10]")
    states = {run["name"]: run["state"] for run in more["grid"]}
    assert {name for name, state in states.items() if state == "RUN"} == {"10k-64e9", "20k-64e9", "50k-64e9"}
    assert more["nodes"]["scaling"]["state"] == "RUN"


def test_computes_are_planned_by_the_law_that_was_fitted(ran: tuple[Headrace, dict[str, Any]]) -> None:
    headrace, run = ran
    checkpoint = f"{headrace.store_url}/nodes/scaling/{run['nodes']['scaling']['key'][:16]}"
    plan = headrace.json("plan-compute", "--flops", "1e14", "--batch-tokens", "256", "--fit", checkpoint)
    assert plan["law"] == run["findings"]["law"]["law"]


def test_a_run_that_diverges_is_named_with_what_to_do(ran: tuple[Headrace, dict[str, Any]], recipe: str) -> None:
    headrace, _ = ran
    done = headrace.command("scaling-study", recipe, "--json", "--set", "scaling.sizes.50k.learning_rate=9.0")
    assert done.returncode == 1, done.stdout
    run = json.loads(done.stdout)
    failed = {name: node["error"] for name, node in run["nodes"].items() if node["state"] == "FAILED"}
    assert failed and all(name == "scaling" or "50k" in name for name in failed), failed
    assert "learning rate" in next(iter(failed.values()))
