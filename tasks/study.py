"""A study's grid as a plan has it, and what came of it."""

import json
from dataclasses import dataclass
from typing import Any

from configs.pretrain import PretrainSpec
from configs.recipe import Recipe, RecipeNode
from configs.size import model_size
from configs.study import MODEL, ScalingSpec
from configs.tokenizer import TokenizerSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from tasks.plan import Plan


@dataclass(frozen=True)
class GridRun:
    """One training of the grid, before or after it."""

    name: str
    node: str
    parameters: int | None
    """None where the tokenizer is of another recipe, which alone knows its vocabulary."""
    flops: float | None
    """None as well."""
    tokens: int
    steps: int
    learning_rate: float
    state: str
    """HIT, RUN or RESUME."""


def study_node(recipe: Recipe) -> RecipeNode:
    """The recipe's scaling node. Raises ValueError where it has none, or several."""
    found = [node for node in recipe.nodes.values() if node.kind.spec is ScalingSpec]
    if len(found) != 1:
        raise ValueError(
            f"recipe {recipe.name} has {len(found)} nodes of kind scaling: name a recipe with one, such as `scaling`, "
            "or run this one by `headrace run`"
        )
    return found[0]


def grid_of(plan: Plan) -> list[GridRun]:
    """The study's trainings, in the order in which they are begun."""
    inputs = study_node(plan.recipe).inputs
    return [
        _grid_run(plan, slot.removeprefix(f"{MODEL}."), node)
        for slot, node in inputs.items()
        if slot.startswith(f"{MODEL}.")
    ]


def _grid_run(plan: Plan, name: str, node: str) -> GridRun:
    planned = plan.nodes[node]
    spec = planned.spec
    assert isinstance(spec, PretrainSpec), node
    tokens = spec.steps * spec.global_batch * spec.sequence_length
    tokenizer = plan.recipe.nodes.get(planned.recipe_node.inputs.get("tokenizer", ""))
    size = None
    if tokenizer is not None and isinstance(tokenizer.written, TokenizerSpec):
        size = model_size(spec.model, tokenizer.written.vocab_size, spec.sequence_length)
    return GridRun(
        name=name,
        node=node,
        parameters=size.parameters if size else None,
        flops=float(size.flops_per_token * tokens) if size else None,
        tokens=tokens,
        steps=spec.steps,
        learning_rate=spec.optimizer.learning_rate,
        state=planned.state,
    )


def findings(store: Store, key: str) -> dict[str, Any]:
    """The scaling node's law, points and plan. Raises FileNotFoundError where it is not done."""
    checkpoint = Checkpoint.open(store, "scaling", key)
    return {name: json.loads(checkpoint.read(checkpoint.file(f"{name}.json"))) for name in ("law", "points", "plan")}
