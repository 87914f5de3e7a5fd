"""headrace verify, doctor, gc: the store's health."""

from typing import Annotated

import typer

from flows.cli import options, show


def verify(
    store: options.StoreUrl = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare checksums.")] = False,
    as_json: options.Json = False,
) -> None:
    """Checks that every finished node's files are there, with --deep also that no byte has changed."""
    from ray_jobs.checkpoint import verify as checks

    raise typer.Exit(checks.main(options.store_at(store), deep, as_json, show))


def doctor(store: options.StoreUrl = None, as_json: options.Json = False) -> None:
    """Races writers against the store and says plainly what it guarantees."""
    from ray_jobs.checkpoint import doctor as checks

    raise typer.Exit(checks.main(options.store_at(store), as_json, show))


def gc(
    store: options.StoreUrl = None,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0, help="Runs younger than this are kept.")] = 30,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it only say what would be deleted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Deletes what no ref, pin, recent run or working job needs. A dry run unless --apply is given."""
    from ray_jobs.checkpoint import gc as collection

    raise typer.Exit(collection.main(options.store_at(store), keep_days, apply, as_json, show))
