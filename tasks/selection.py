"""Which part of a graph to run: --from, --to, --only, --strict."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from configs.recipe import Recipe
from tasks.plan import HIT, Plan


class Selection(BaseModel):
    """Default: the whole graph."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    from_node: str | None = None
    """Run this node and what is computed from it; everything before it must stand already."""
    to_node: str | None = None
    """Run up to this node; nothing after it."""
    only: list[str] = Field(default_factory=list)
    """Run just these nodes; everything else that they need must stand already."""
    strict: bool = False
    """Refuse checkpoints whose code has changed since (DRIFT) or that lack quarantined shards."""


@dataclass(frozen=True)
class Chosen:
    nodes: list[str]
    """In order; those that stand already among them."""
    to_run: list[str]


def select(plan: Plan, selection: Selection) -> Chosen:
    """The nodes to go through.

    Raises:
        ValueError: a name is no node of the recipe, a node outside the selection is needed and missing, or `strict`
            finds a checkpoint that it refuses.
    """
    recipe = plan.recipe
    wanted = set(recipe.nodes)
    if selection.from_node:
        wanted &= recipe.descendants(_known(recipe, selection.from_node))
    if selection.to_node:
        wanted &= recipe.ancestors(_known(recipe, selection.to_node))
    if selection.only:
        wanted &= {_known(recipe, name) for name in selection.only}
    if not wanted:
        raise ValueError("the selection is empty: --to names a node that does not come after --from")
    for name in recipe.nodes:
        if name not in wanted:
            continue
        for upstream in recipe.nodes[name].inputs.values():
            if upstream not in wanted and plan.nodes[upstream].state != HIT:
                raise ValueError(
                    f"{name} needs {upstream}, which is not selected and has no checkpoint "
                    f"({'; '.join(plan.nodes[upstream].why)}): run it too, or leave out --from and --only"
                )
    if selection.strict:
        _refuse_doubtful(plan, recipe, wanted)
    ordered = [name for name in recipe.nodes if name in wanted]
    return Chosen(ordered, [name for name in ordered if plan.nodes[name].state != HIT])


def _known(recipe: Recipe, name: str) -> str:
    if name not in recipe.nodes:
        raise ValueError(f"recipe {recipe.name} has no node {name!r}: it has {', '.join(recipe.nodes)}")
    return name


def _refuse_doubtful(plan: Plan, recipe: Recipe, wanted: set[str]) -> None:
    used = set().union(*(recipe.ancestors(name) for name in wanted))
    for name in recipe.nodes:
        node = plan.nodes[name]
        if name not in used or node.manifest is None:
            continue
        if node.drift:
            raise ValueError(
                f"--strict: {name}: {node.why[0]}: raise its version, or set {name}.generation="
                f"{node.recipe_node.generation + 1} to compute it anew"
            )
        if node.manifest.quarantined:
            shard = node.manifest.quarantined[0]
            raise ValueError(
                f"--strict: {name} lacks {len(node.manifest.quarantined)} shards ({shard.shard}: {shard.reason}): "
                f"mend the cause and set {name}.generation={node.recipe_node.generation + 1}"
            )
