"""Options that most commands share."""

from pathlib import Path
from typing import Annotated

import typer

from configs.recipe import Recipe, load_recipe, recipe_names
from ray_jobs.checkpoint.store import Store, open_store
from tasks.defaults import store_url

RecipeName = Annotated[
    str,
    typer.Argument(
        help="A recipe's name (demo, tiny, small, 7b, scaling, long-context) or a path to a .yaml.",
        autocompletion=lambda: recipe_names(),
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store", help="s3://bucket/prefix or file:///folder. Default: HEADRACE_STORE, then ./.headrace/store."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.FIELD=VALUE", help="Changes one value of the recipe. May be given often."),
]
Json = Annotated[bool, typer.Option("--json", help="Prints one JSON object instead of text.")]
Crawl = Annotated[
    str | None,
    typer.Option("--crawl", help="Common Crawl's name (CC-MAIN-2026-43), or a URL or glob of WARC/WET files."),
]
Files = Annotated[int | None, typer.Option("--files", min=1, help="With --crawl: the first so many of its files.")]


def store_at(url: str | None) -> Store:
    return open_store(url or store_url())


def recipe_with(name: str, overrides: list[str] | None, crawl: str | None = None, files: int | None = None) -> Recipe:
    return load_recipe(name, [*crawl_overrides(crawl, files), *(overrides or ())])


def crawl_overrides(crawl: str | None, files: int | None) -> list[str]:
    """--crawl and --files as changes of the recipe's snapshot."""
    if crawl is None:
        if files is not None:
            raise ValueError("--files needs --crawl: say which crawl's files")
        return []
    if crawl.startswith("CC-MAIN-"):
        limit = "" if files is None else f", num_files: {files}"
        source = f"common_crawl: {{crawl: {crawl}{limit}}}"
    else:
        if files is not None:
            raise ValueError("--files goes with a Common Crawl name; name the files themselves in --crawl")
        path = crawl if "://" in crawl else str(Path(crawl).absolute())
        source = f"archives: {{urls: ['{path}']}}"
    return [f"snapshot={{{source}}}"]
