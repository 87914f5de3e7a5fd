"""The scaling node finds the law that made its runs, and refuses runs that say nothing together."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from configs.base import Resources
from configs.scaling import parse_law
from configs.study import ScalingSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.scaling.job import run
from tests.scaling.grid import BUDGETS, FACTOR, TRUE, evaluation, grid, training

SPEC = ScalingSpec(budgets=BUDGETS, plan_budgets=(1e16,), bootstrap_samples=60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("scaling") / "store")


@pytest.fixture(scope="module")
def inputs(store: Store) -> dict[str, Checkpoint]:
    return grid(store)


def fitted(store: Store, inputs: dict[str, Checkpoint], spec: ScalingSpec, folder: Path) -> dict[str, Any]:
    """What the node writes, by file, and its metrics."""
    output = NodeOutput(open_store(folder), NodePath("scaling", "0" * 64), "a", Resources(workers=1), InlineExecutor)
    outcome = run(spec, inputs, output, Resources(workers=1))
    (receipt,) = output.receipts.values()
    files = {file.name: output.store.get(file.path) for file in receipt.files}
    return {**{name: json.loads(data or b"") for name, data in files.items()}, "metrics": outcome.metrics}


@pytest.fixture(scope="module")
def found(store: Store, inputs: dict[str, Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fitted(store, inputs, SPEC, tmp_path_factory.mktemp("fitted"))


def test_the_law_of_the_runs_lies_within_the_intervals(found: dict[str, Any]) -> None:
    law = found["law.json"]
    for name in ("E", "alpha", "beta", "size_exponent"):
        low, high = law["intervals_95"][name]
        assert low < getattr(TRUE, name) < high, name
    assert law["size_exponent"] == pytest.approx(TRUE.size_exponent, abs=0.05)
    assert law["num_runs"] == 15 and law["notes"] == []
    assert parse_law(json.dumps(law).encode(), "law.json").model_dump() == law["law"]
    assert found["metrics"]["size_exponent_low"] < TRUE.size_exponent < found["metrics"]["size_exponent_high"]


def test_the_parabolas_find_the_best_sizes_of_the_law(found: dict[str, Any]) -> None:
    law = found["law.json"]
    assert law["flops_per_parameter_token"] == pytest.approx(FACTOR, rel=1e-6)
    for valley, budget in zip(law["valleys"], BUDGETS, strict=True):
        assert valley["inside"] and valley["flops"] == budget
        assert valley["parameters"] == pytest.approx(TRUE.optimum(budget, FACTOR)[0], rel=0.25)
    assert law["power"]["exponent"] == pytest.approx(TRUE.size_exponent, abs=0.05)


def test_the_plan_is_the_best_split_with_the_truth_in_its_band(found: dict[str, Any]) -> None:
    (best,) = found["plan.json"]
    parameters, tokens = TRUE.optimum(1e16, FACTOR)
    assert best["parameters_95"][0] < parameters < best["parameters_95"][1]
    assert best["tokens_95"][0] < tokens < best["tokens_95"][1]
    assert best["loss_95"][0] < TRUE.loss(parameters, tokens) < best["loss_95"][1]
    assert FACTOR * best["parameters"] * best["tokens"] == pytest.approx(1e16)
    curve = found["law.json"]["curve"]
    assert curve[0]["flops"] == pytest.approx(min(BUDGETS)) and curve[-1]["flops"] == pytest.approx(1e16)


def test_every_point_is_told_with_what_the_law_says_of_it(found: dict[str, Any]) -> None:
    points = found["points.json"]
    assert [point["budget"] for point in points] == sorted(point["budget"] for point in points)
    for point in points:
        assert point["predicted_loss"] == pytest.approx(point["loss"], rel=0.005)
        assert point["loss"] == pytest.approx(TRUE.loss(point["parameters"], point["tokens"]), rel=0.005)


def swapped(inputs: dict[str, Checkpoint], slot: str, checkpoint: Checkpoint) -> dict[str, Checkpoint]:
    return {**inputs, slot: checkpoint}


def upstream(store: Store, checkpoint: Checkpoint, slot: str) -> Checkpoint:
    reference = checkpoint.manifest.inputs[slot]
    return Checkpoint.open(store, reference.node, reference.key)


def test_a_run_no_better_than_frequencies_is_called_diverged(
    store: Store, inputs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    model = inputs["model.s1-b1"]
    data = [upstream(store, model, slot) for slot in ("tokens", "tokenizer")]
    bad = swapped(inputs, "evaluation.s1-b1", evaluation(store, 7.2, model, *data))
    with pytest.raises(ValueError, match=r"run s1-b1 diverged.* 7\.200, .* 6\.500\. Lower .*leave_out=\[s1-b1\]"):
        fitted(store, bad, SPEC, tmp_path)


def test_evaluations_that_cannot_be_compared_are_refused(
    store: Store, inputs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    model = inputs["model.s1-b1"]
    tokens, tokenizer = (upstream(store, model, slot) for slot in ("tokens", "tokenizer"))
    other_window = evaluation(store, 3.0, model, tokens, tokenizer, stride=32)
    with pytest.raises(ValueError, match="s1-b1 and s0-b0 are evaluated on different windows"):
        fitted(store, swapped(inputs, "evaluation.s1-b1", other_window), SPEC, tmp_path)
    with pytest.raises(ValueError, match=r"evaluation\.s1-b1 is of model .*name the evaluation of that model"):
        fitted(store, swapped(inputs, "evaluation.s1-b1", inputs["evaluation.s2-b1"]), SPEC, tmp_path)
    foreign = training(store, 1000, 1000, {"tokens": tokenizer, "tokenizer": tokenizer})
    changed = swapped(inputs, "model.s1-b1", foreign)
    changed["evaluation.s1-b1"] = evaluation(store, 3.0, foreign, tokenizer, tokenizer)
    with pytest.raises(ValueError, match="s1-b1 and s0-b0 are of different tokens"):
        fitted(store, changed, SPEC, tmp_path)


def test_few_runs_have_a_law_without_intervals_and_say_so(
    inputs: dict[str, Checkpoint], store: Store, tmp_path: Path
) -> None:
    few = {slot: inputs[slot] for slot in inputs if slot[-5:] in {"s0-b0", "s2-b0", "s4-b0", "s1-b1", "s2-b1", "s3-b2"}}
    found = fitted(store, few, SPEC, tmp_path)
    law = found["law.json"]
    assert law["intervals_95"] == {} and law["power"] is None
    assert found["plan.json"][0]["parameters_95"] is None
    said = " ".join(law["notes"])
    assert "there are no intervals" in said and "has 2 sizes" in said and "a power law takes two" in said
    assert not any(math.isnan(best["parameters"]) for best in law["curve"])
