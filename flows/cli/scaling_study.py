"""headrace scaling-study."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.cli import options, show
from tasks.selection import Selection

if TYPE_CHECKING:
    from tasks.study import GridRun


def scaling_study(
    recipe: options.RecipeName = "scaling",
    store: options.StoreUrl = None,
    overrides: options.Overrides = None,
    crawl: options.Crawl = None,
    files: options.Files = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look at the crawl anew instead of its pin.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="A Ray cluster's http://head:8265. Default: a head on this machine.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Shows the grid and what it takes. Runs nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Trains a grid of small models in parallel, and fits the scaling law of their losses.

    The grid is the recipe's section of kind `scaling`: every size on every budget of FLOPs (an isoFLOP grid, Hoffmann
    et al. 2022), each run a node of the graph: what stands is reused, what was interrupted goes on. L(N, D) = E +
    A/N^alpha + B/D^beta is fitted to the losses on held-out text, with intervals by bootstrap, and beside it a parabola
    for each budget. `headrace plan-compute --fit` plans by the law.
    """
    from flows.cli.run import check_completed, finish, run_as_json, run_plan
    from tasks.estimate import estimate
    from tasks.plan import make_plan
    from tasks.study import findings, grid_of, study_node

    began = time.time()
    all_overrides = [*options.crawl_overrides(crawl, files), *(overrides or ())]
    asked, at = options.recipe_with(recipe, all_overrides), options.store_at(store)
    node = study_node(asked)
    plan = make_plan(asked, at, refresh, offline=plan_only)
    grid = grid_of(plan)
    if not as_json:
        show.console().print(grid_table(grid))
    if plan_only:
        estimates = estimate(plan)
        if as_json:
            show.print_json({**show.plan_as_json(plan, estimates), "grid": [vars(run) for run in grid]})
        else:
            show.console().print(show.estimate_line(plan, estimates), soft_wrap=True)
        return
    parameters = {"recipe": recipe, "overrides": all_overrides, "address": address}
    run = run_plan(plan, Selection(), "scaling_study", parameters, as_json)
    found = findings(at, run.nodes[node.name].key) if run.nodes[node.name].state in {"HIT", "DONE"} else None
    if as_json:
        show.print_json({**run_as_json(run, at), "grid": [vars(one) for one in grid], "findings": found})
        check_completed(run)
        return
    if found is not None:
        _tell(found, f"{at.url}/nodes/scaling/{run.nodes[node.name].key[:16]}")
    finish(run, at, as_json, time.time() - began)


def grid_table(grid: "list[GridRun]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    for heading in ("parameters", "tokens", "a parameter", "steps", "FLOPs", "learning rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for run in grid:
        size, ratio, flops = "–", "–", "–"
        if run.parameters is not None and run.flops is not None:
            size, ratio, flops = (
                show.compact(run.parameters),
                f"{run.tokens / run.parameters:,.1f}",
                f"{run.flops:.2e}".replace("e+", "e"),
            )
        cells = (size, show.compact(run.tokens), ratio, f"{run.steps:,}", flops, f"{run.learning_rate:g}")
        table.add_row(run.name, *cells, show.styled(run.state))
    return table


def _tell(found: dict[str, Any], checkpoint: str) -> None:
    law, console = found["law"], show.console()
    constants, intervals = law["law"], law["intervals_95"]
    console.print("L(N, D) = E + A/N^alpha + B/D^beta, in nats a token of held-out text:")
    for name, value in {**constants, "size_exponent": law["size_exponent"]}.items():
        low, high = intervals.get(name, (None, None))
        between = "" if low is None else f"  95% {0 if 0 <= low < 5e-4 else low:.4g} to {high:.4g}"
        console.print(f"  {name.replace('_', ' ')} {value:.4g}{between}", soft_wrap=True)
    if law["power"]:
        console.print(f"  by parabolas, the best size grows as C^{law['power']['exponent']:.3f}")
    console.print(plan_table(found["plan"]))
    for note in law["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    console.print(f"plan others by: headrace plan-compute --fit {checkpoint} --flops …\n", soft_wrap=True, markup=False)


def plan_table(plan: list[dict[str, Any]]) -> Table:
    """The best split of larger budgets, with 95% intervals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("FLOPs", "best size", "95%", "by parabolas", "tokens", "loss", "95%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for best in plan:
        sizes, losses = best["parameters_95"], best["loss_95"]
        table.add_row(
            f"{best['flops']:.2e}".replace("e+", "e"),
            show.compact(best["parameters"]),
            f"{show.compact(sizes[0])} to {show.compact(sizes[1])}" if sizes else "–",
            show.compact(best["parameters_by_parabolas"]) if best["parameters_by_parabolas"] else "–",
            show.compact(best["tokens"]),
            f"{best['loss']:.3f}",
            f"{losses[0]:.3f} to {losses[1]:.3f}" if losses else "–",
        )
    return table
