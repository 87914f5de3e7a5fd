"""headrace plan."""

from typing import Annotated

import typer

from flows.cli import options, show


def plan(
    recipe: options.RecipeName = "demo",
    store: options.StoreUrl = None,
    overrides: options.Overrides = None,
    crawl: options.Crawl = None,
    files: options.Files = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look at the crawl anew instead of its pin.")] = False,
    as_json: options.Json = False,
) -> None:
    """Says which nodes would run, why, and what that takes. Runs nothing."""
    from tasks.estimate import estimate
    from tasks.plan import make_plan

    asked = options.recipe_with(recipe, overrides, crawl, files)
    made = make_plan(asked, options.store_at(store), refresh, offline=True)
    estimates = estimate(made)
    if as_json:
        show.print_json(show.plan_as_json(made, estimates))
        return
    console = show.console()
    console.print(show.plan_table(made, estimates))
    console.print(show.estimate_line(made, estimates), soft_wrap=True)
