"""Graphs of a small crawl whose nodes are computed in the test's own process, through the real protocol."""

from collections.abc import Sequence
from pathlib import Path

from configs.recipe import load_recipe
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from tasks.plan import Plan, make_plan

RULES_OFF = (
    "languages=[]",
    "min_language_score=0",
    "gopher_repetition=null",
    "gopher_quality=null",
    "fineweb=null",
    "min_words=10",
)


def planned(folder: Path, archives: Sequence[Path], changes: Sequence[str] = (), name: str = "tiny") -> Plan:
    """The plan of the recipe over the archives, where the filter drops only what is too short."""
    source = f"snapshot={{archives: {{urls: [{', '.join(repr(str(path)) for path in archives)}]}}}}"
    recipe = load_recipe(name, [source, *(f"filter.{off}" for off in RULES_OFF), *changes])
    return make_plan(recipe, open_store(folder / "store"))


def computed(
    folder: Path, archives: Sequence[Path], nodes: Sequence[str], changes: Sequence[str] = (), name: str = "tiny"
) -> Plan:
    """The plan after these nodes have run, and all that they need, one after another."""
    recipe = planned(folder, archives, changes, name).recipe
    needed = set().union(*(recipe.ancestors(one) for one in nodes))
    for wanted in [one for one in recipe.nodes if one in needed]:
        before = planned(folder, archives, changes, name)
        node = before.nodes[wanted]
        upstream = {slot: before.nodes[up] for slot, up in node.recipe_node.inputs.items()}
        request = NodeRequest(
            node=node.kind,
            version=node.payload["version"],
            spec=node.payload["spec"],
            inputs={slot: InputKey(node=up.kind, key=up.key) for slot, up in upstream.items()},
            resources={"workers": 1},
        )
        run_node(before.store, request)
    return planned(folder, archives, changes, name)
