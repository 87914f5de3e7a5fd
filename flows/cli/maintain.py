"""headrace verify, doctor, gc: the store's health."""

from typing import Annotated

import typer

from flows.cli import options, show


def verify(
    store: options.StoreUrl = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare checksums.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back what is damaged, so that the next run computes just that again.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Checks that every finished node's files are there, with --deep also that no byte has changed.

    Exits with 1 where something is damaged.
    """
    from ray_jobs.checkpoint.verify import finished_nodes, withdraw_damaged
    from ray_jobs.checkpoint.verify import verify as findings_of

    at = options.store_at(store)
    nodes = finished_nodes(at)
    console = show.console()
    findings = []
    for number, node in enumerate(nodes, 1):
        if console.is_terminal and not as_json:
            console.print(f"{number} of {len(nodes)}: {node.root}", end="\r")
        for finding in findings_of(at, [node], deep):
            findings.append(finding)
            if not as_json:
                console.print(str(finding), markup=False, soft_wrap=True)
    damaged = [finding for finding in findings if finding.is_damage]
    withdrawn = withdraw_damaged(at, damaged) if withdraw else []
    if as_json:
        found = [
            {"node": f.node.root, "path": f.path, "problem": f.problem.name, "detail": f.detail, "damage": f.is_damage}
            for f in findings
        ]
        show.print_json({"nodes": len(nodes), "deep": deep, "findings": found, "withdrawn": withdrawn})
    else:
        checked = "every byte" if deep else "sizes"
        console.print(f"{len(nodes)} nodes checked ({checked}): {len(damaged) or 'nothing'} damaged")
        for path in withdrawn:
            console.print(f"withdrawn {path}: `headrace run` computes it again", soft_wrap=True)
    raise typer.Exit(1 if damaged and not withdrawn else 0)


def doctor(store: options.StoreUrl = None, as_json: options.Json = False) -> None:
    """Races writers against the store and says plainly what it guarantees. Exits with 1 where it guarantees too little."""
    from ray_jobs.checkpoint.doctor import examine

    at = options.store_at(store)
    findings = examine(at)
    if as_json:
        show.print_json({"store": at.url, "findings": [vars(finding) for finding in findings]})
    else:
        console = show.console()
        console.print(f"store {at.url}", soft_wrap=True)
        for finding in findings:
            verdict = "[green]holds[/]" if finding.holds else "[bold red]fails[/]"
            console.print(f"{verdict}  {finding.name}: ", end="")
            console.print(finding.detail, markup=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.holds for finding in findings) else 1)


def gc(
    store: options.StoreUrl = None,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0, help="Runs younger than this are kept.")] = 30,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it only say what would be deleted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Deletes what no ref, pin, recent run or working job needs. A dry run unless --apply is given."""
