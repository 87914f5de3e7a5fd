"""scaling-study: a grid of small trainings in parallel, one Prefect task and one Ray job each, then the law they give.

The grid is the recipe's: its section of kind `scaling` stands for all its runs (configs/study.py). So build-model runs
the same graph; this flow refuses a recipe without a study.
"""

from pathlib import Path

from prefect import flow, runtime
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from configs.recipe import load_recipe
from flows.build_model import run_recipe
from tasks.study import study_node

# Each is a thread that waits: for room in the cluster, which bounds the jobs, then for its job.
MAX_RUNS_AT_ONCE = 32


@flow(
    name="scaling-study",
    flow_run_name=lambda: Path(runtime.flow_run.parameters["recipe"]).stem,
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_RUNS_AT_ONCE),  # type: ignore[arg-type]  # invariant in its future
    persist_result=False,
    log_prints=False,
)
def scaling_study(
    recipe: str = "scaling",
    store: str | None = None,
    overrides: list[str] | None = None,
    address: str | None = None,
    refresh: bool = False,
) -> State:
    """Trains every size on every budget, as many runs at once as the cluster holds, and fits the law of their losses.

    Args:
        recipe: The name of a recipe with a study, or the path of a YAML file that the worker can read.
        store: Where checkpoints are: s3://bucket/prefix or file:///folder. Default: HEADRACE_STORE, ./.headrace/store.
        overrides: Changed fields, such as `scaling.pretrain.global_batch=32`.
        address: A Ray cluster's http://head:8265. Default: HEADRACE_RAY_ADDRESS, then the embedded head.
        refresh: Look at the crawl anew instead of reusing its pinned listing.
    """
    study_node(load_recipe(recipe, overrides or ()))
    return run_recipe(recipe, store, overrides, None, address, refresh)
