"""headrace verify, doctor, gc: the store's health. Exit status 1 where something is wrong."""

from typing import Annotated

import typer

from flows.cli import options, show


def verify(
    store: options.StoreUrl = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare checksums.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back what is damaged, so that the next run computes just that.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Checks that every finished node's files are there, with --deep also that no byte has changed."""
    from ray_jobs.checkpoint import verify as checks

    opened = options.store_at(store)
    nodes = checks.finished_nodes(opened)
    findings = []
    for finding in checks.verify(opened, nodes, deep):
        findings.append(finding)
        if not as_json:
            show.console().print(str(finding), style="red" if finding.is_damage else None, markup=False, soft_wrap=True)
    damaged = [finding for finding in findings if finding.is_damage]
    if withdraw:
        checks.withdraw(opened, damaged)
    if as_json:
        described = [
            {"path": finding.path, "problem": finding.problem.name, "detail": finding.detail} for finding in findings
        ]
        show.print_json({"nodes": len(nodes), "deep": deep, "withdrawn": withdraw, "findings": described})
    else:
        read = "every byte read" if deep else "by their sizes; --deep reads every byte"
        show.console().print(f"{len(nodes)} nodes verified ({read}): {len(damaged) or 'nothing'} damaged")
        if withdraw and damaged:
            show.console().print("what is damaged was withdrawn: `headrace run` computes just that again")
    raise typer.Exit(1 if damaged else 0)


def doctor(store: options.StoreUrl = None, as_json: options.Json = False) -> None:
    """Races writers against the store and says plainly what it guarantees."""
    from ray_jobs.checkpoint.doctor import examine

    findings = examine(options.store_at(store))
    if as_json:
        show.print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            style, word = ("green", "holds") if finding.holds else ("bold red", "FAILS")
            show.console().print(f"[{style}]{word}[/] {finding.name}: {finding.detail}", soft_wrap=True)
    raise typer.Exit(0 if all(finding.holds for finding in findings) else 1)


def gc(
    store: options.StoreUrl = None,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0, help="Runs younger than this are kept.")] = 30,
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", min=0, help="Nothing younger is touched; data outlive their manifest so.")
    ] = 24,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it only say what would be deleted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Deletes what no ref, recent run or working job needs. A dry run unless --apply is given."""
    from ray_jobs.checkpoint.gc import collect

    report = collect(options.store_at(store), 86400 * keep_days, 3600 * grace_hours, apply=apply)
    if as_json:
        items = [{**vars(item), "action": item.action.value} for item in report.items]
        show.print_json({"applied": report.applied, "kept_nodes": report.num_kept_nodes, "items": items})
        return
    for item in report.items:
        line = f"{item.action.value:8} {item.bytes / 1e6:10.2f} MB  {item.what}  ({item.why})"
        show.console().print(line, markup=False, soft_wrap=True)
    freed = f"{report.freed_bytes / 1e6:.2f} MB {'freed' if apply else 'would be freed; --apply does it'}"
    show.console().print(f"{report.num_kept_nodes} nodes are needed; {freed}")
