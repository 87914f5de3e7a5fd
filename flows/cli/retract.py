"""headrace retract: takes pages, sites or whole crawls out of the corpus, and names the models that saw them."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from configs.crawl import DOMAIN
from flows.cli import options, show
from ray_jobs.checkpoint.retraction import Retracted, Retraction
from ray_jobs.checkpoint.retraction import retract as write_retraction


def retract(
    urls: Annotated[Path | None, typer.Option(help="A file of URLs, one a line.", exists=True, dir_okay=False)] = None,
    domains: Annotated[
        Path | None, typer.Option(help="A file of domains, one a line; hosts below them count.", exists=True)
    ] = None,
    crawl: Annotated[list[str] | None, typer.Option(help="A crawl's name. May be given often.")] = None,
    reason: Annotated[str, typer.Option(help="Kept in the store's log.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would touch.")] = False,
    store: options.StoreUrl = None,
    as_json: options.Json = False,
) -> None:
    """Retracts documents: the next run builds the corpus without them. Lists every model that was trained on one."""
    from tasks.retraction import touched

    retraction = Retraction(
        urls=_lines(urls),
        domains=tuple(_domain(line) for line in _lines(domains)),
        crawls=tuple(crawl or ()),
    )
    if retraction == Retraction():
        raise ValueError("say what to retract: --urls FILE, --domains FILE or --crawl NAME")
    at = options.store_at(store)
    found = touched(at, Retracted.by([retraction]))
    digest = retraction.digest if dry_run else write_retraction(at, retraction, reason or "headrace retract")
    if as_json:
        show.print_json({"retraction": digest, "dry_run": dry_run, **dataclasses.asdict(found)})
        return
    console = show.console()
    number = sum(len(part) for part in (retraction.urls, retraction.domains, retraction.crawls))
    state = "would be" if dry_run else "is"
    console.print(f"retraction {digest} of {number} names {state} in force in {at.url}", soft_wrap=True)
    console.print(f"{found.num_documents:,} documents of this store's crawls are named")
    for model in found.models:
        console.print(
            f"  {model.node} {model.key[:16]} was trained on {model.num_documents:,} of them"
            + (f", of run {', '.join(model.runs)}" if model.runs else "")
            + (f"; {', '.join(model.refs)} points at it" if model.refs else ""),
            markup=False,
            soft_wrap=True,
        )
    if not found.models:
        console.print("no model here was trained on any of them")
    if not dry_run:
        console.print("the next `headrace run` builds the corpus, and what follows from it, without them")


def _domain(line: str) -> str:
    domain = line.lower().rstrip(".")
    if not DOMAIN.fullmatch(domain):
        raise ValueError(
            f"{line!r} is no domain: write hosts alone, such as 'example.com', without scheme, port, path or wildcard, "
            "and those beyond ASCII in their xn-- form"
        )
    return domain


def _lines(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    lines = [line.strip() for line in file.read_text().splitlines()]
    return tuple(sorted({line for line in lines if line and not line.startswith("#")}))
