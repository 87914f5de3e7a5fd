"""A study stands for a grid of ordinary nodes, each of which meets its budget."""

from typing import Any

import pytest

from configs.recipe import Recipe, load_recipe, make_recipe
from configs.size import model_size
from configs.study import run_name
from ray_jobs.checkpoint.keys import key_of, key_payload

VOCABULARY = 512
SIZES = {
    "s": {"hidden": 16, "layers": 1, "heads": 1, "intermediate": 48},
    "m": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 96},
    "l": {"hidden": 64, "layers": 3, "heads": 4, "intermediate": 176},
}
DATA: dict[str, Any] = {"snapshot": {"documentation": {}}, "filter": {}, "scrub": {}}
DATA |= {"tokenizer": {"vocab_size": VOCABULARY}, "tokens": {}}


def recipe_of(study: dict[str, Any], **sections: Any) -> Recipe:
    written = {"budgets": [1e11, 2.5e11], "sizes": SIZES, **study}
    return make_recipe({"nodes": {**DATA, **sections, "scaling": written}}, "made")


def trainings(recipe: Recipe) -> dict[str, Any]:
    return {node.name: node.written for node in recipe.nodes.values() if node.kind.name == "pretrain"}


def test_every_run_meets_its_budget_to_half_a_step() -> None:
    found = trainings(recipe_of({}))
    assert len(found) == 6
    for name, spec in found.items():
        budget = 1e11 if name.endswith("-1e11") else 2.5e11
        flops = model_size(spec.model, VOCABULARY, spec.sequence_length).flops_per_token
        a_step = flops * spec.global_batch * spec.sequence_length
        assert abs(spec.steps * a_step - budget) <= a_step / 2
        assert spec.optimizer.warmup_steps == round(0.05 * spec.steps)


def test_a_run_has_the_key_of_the_same_training_written_by_hand() -> None:
    recipe = recipe_of({"pretrain": {"global_batch": 8}})
    run = recipe.nodes["pretrain-m-25e10"]
    steps = run.written.steps
    optimizer = {"warmup_steps": round(0.05 * steps)}
    by_hand = {"model": SIZES["m"], "optimizer": optimizer, "steps": steps, "global_batch": 8}
    alone = make_recipe({"nodes": {**DATA, "pretrain": by_hand}}, "made").nodes["pretrain"]
    assert run.inputs == alone.inputs
    first, second = (key_of(key_payload("pretrain", 1, node.written, {}, 1)) for node in (run, alone))
    assert first == second


def test_another_budget_or_size_leaves_the_runs_there_are_alone() -> None:
    few = trainings(recipe_of({}))
    more = recipe_of({"budgets": [1e11, 2.5e11, 1e12], "sizes": {**SIZES, "xl": {**SIZES["l"], "layers": 4}}})
    assert len(trainings(more)) == 12
    assert few.items() <= trainings(more).items()


def test_the_scaling_node_reads_every_run_and_its_evaluation() -> None:
    recipe = recipe_of({"leave_out": ["l-1e11"], "plan_budgets": [1e15]}, report={})
    node = recipe.nodes["scaling"]
    runs = ["s-1e11", "m-1e11", "s-25e10", "m-25e10", "l-25e10"]
    assert dict(node.inputs) == {
        **{f"model.{run}": f"pretrain-{run}" for run in runs},
        **{f"evaluation.{run}": f"evaluate-{run}" for run in runs},
    }
    assert node.written.budgets == (1e11, 2.5e11) and node.written.plan_budgets == (1e15,)
    assert recipe.nodes["evaluate-m-1e11"].inputs["model"] == "pretrain-m-1e11"
    assert set(recipe.nodes["report"].inputs) == set(recipe.nodes) - {"report"}
    assert recipe.nodes["pretrain-s-1e11"].resources.workers == 1


def test_the_longest_runs_come_first() -> None:
    names = list(trainings(recipe_of({})))
    assert all(name.endswith("25e10") for name in names[:3])


def test_the_learning_rate_falls_with_width_unless_a_size_has_its_own() -> None:
    own = {**SIZES, "l": {**SIZES["l"], "learning_rate": 1e-3}}
    base = {"optimizer": {"learning_rate": 4e-3}}
    found = trainings(recipe_of({"sizes": own, "pretrain": base, "rate_hidden": 64, "rate_exponent": 1}))
    rates = {size: found[f"pretrain-{size}-1e11"].optimizer.learning_rate for size in SIZES}
    assert rates == {"s": 0.016, "m": 0.008, "l": 0.001}


def test_a_study_over_runs_that_the_recipe_names_is_the_fit_alone() -> None:
    runs = ["a", "b", "c", "d", "e"]
    sections = {f"p-{run}": {"kind": "pretrain", "seed": place} for place, run in enumerate(runs)}
    sections |= {f"e-{run}": {"kind": "evaluate", "inputs": {"model": f"p-{run}"}} for run in runs}
    inputs = {slot: {run: f"{slot[0]}-{run}" for run in runs} for slot in ("evaluation",)}
    inputs["model"] = {run: f"p-{run}" for run in runs}
    node = {"budgets": [1e11, 2e11], "inputs": inputs}
    recipe = make_recipe({"nodes": {**DATA, **sections, "scaling": node}}, "made")
    assert len(recipe.nodes["scaling"].inputs) == 10
    del inputs["evaluation"]["c"]
    with pytest.raises(ValueError, match=r"inputs\.evaluation has no 'c'"):
        make_recipe({"nodes": {**DATA, **sections, "scaling": node}}, "made")


@pytest.mark.parametrize(
    ("budget", "name"), [(1e11, "s-1e11"), (2.5e11, "s-25e10"), (123.0, "s-123e0"), (0.5, "s-5em1")]
)
def test_a_budget_names_its_runs_without_dots_and_signs(budget: float, name: str) -> None:
    assert run_name("s", budget) == name


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ({"budgets": [1e9, 2.5e11]}, r"budget 1e\+09 is 5\.\d steps of size s, and a run takes 20"),
        ({"budgets": [1e11]}, "scaling.budgets is .*at least 2 items"),
        ({"budgets": [1e11, 1e11]}, "budgets holds one twice"),
        ({"budgets": [1e11, -1]}, "scaling.budgets.1 is -1"),
        ({"sizes": {"s": SIZES["s"]}}, "scaling.sizes is .*at least 2 items"),
        ({"sizes": {"s": SIZES["s"], "m": SIZES["m"]}}, "the grid has 4 runs, and a law of 5 constants takes 5"),
        ({"leave_out": ["s-1e11", "m-1e11"]}, "the grid has 4 runs"),
        ({"leave_out": ["s-1e12"]}, "leave_out names 's-1e12', which is no run: there are s-1e11"),
        ({"sizes": {**SIZES, "S M": SIZES["s"]}}, "sizes calls one 'S M'"),
        ({"sizes": {**SIZES, "x": {**SIZES["s"], "heads": 3}}}, "sizes.x: hidden .16. must be a multiple of heads"),
        ({"sizes": {**SIZES, "x": {**SIZES["s"], "depth": 3}}}, "no field scaling.sizes.x.depth: there are: hidden"),
        ({"pretrain": {"steps": 100}}, "pretrain.steps follows from the budget: leave it out"),
        ({"pretrain": {"optimizer": {"warmup_steps": 9}}}, "pretrain.optimizer.warmup_steps follows from the budget"),
        ({"pretrain": {"sequence_length": 4096}}, "sequence_length .4096. is more than model.max_positions"),
        ({"tokenizer": "tokeniser"}, "tokenizer is 'tokeniser', which is no node of the recipe: set vocabulary_size"),
        ({"budget": [1e11]}, "no field scaling.budget: did you mean 'budgets'"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_what_would_be_right(study: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        recipe_of(study)


def test_a_name_that_the_recipe_has_already_is_refused() -> None:
    with pytest.raises(ValueError, match="sizes makes a node pretrain-s-1e11, which the recipe has already"):
        recipe_of({}, **{"pretrain-s-1e11": {"kind": "pretrain"}})


def test_the_recipe_scaling_changes_by_overrides_as_any_other() -> None:
    changed = load_recipe("scaling", ["scaling.pretrain.global_batch=16", "scaling.sizes.23k.layers=3"])
    assert changed.nodes["pretrain-23k-1e11"].written.global_batch == 16
    assert changed.nodes["pretrain-23k-1e11"].written.model.layers == 3
