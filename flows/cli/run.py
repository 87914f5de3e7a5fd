"""headrace run."""

import importlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import options, show
from ray_jobs.checkpoint.checkpoint import Checkpoint, local_copy
from ray_jobs.checkpoint.runs import Run, RunNode, last_run_of, new_run_id, write_run
from ray_jobs.checkpoint.store import Store
from tasks.selection import Selection, select

if TYPE_CHECKING:
    from tasks.plan import Plan

NUM_SAMPLES = 3


def run(
    recipe: options.RecipeName = "demo",
    store: options.StoreUrl = None,
    overrides: options.Overrides = None,
    crawl: options.Crawl = None,
    files: options.Files = None,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Run this node and what comes after it.")
    ] = None,
    to_node: Annotated[str | None, typer.Option("--to", metavar="NODE", help="Run up to this node.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NODE", help="Run just this node.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse checkpoints whose code changed since, or that lack shards.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look at the crawl anew instead of its pin.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="A Ray cluster's http://head:8265. Default: a head on this machine.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Runs a recipe's graph: what stands already is reused, what was interrupted goes on."""
    from tasks.plan import make_plan

    began = time.time()
    all_overrides = [*options.crawl_overrides(crawl, files), *(overrides or ())]
    at = options.store_at(store)
    plan = make_plan(options.recipe_with(recipe, all_overrides), at, refresh)
    selection = Selection(from_node=from_node, to_node=to_node, only=only or [], strict=strict)
    parameters = {"recipe": recipe, "overrides": all_overrides, "address": address, "selection": selection}
    recorded = run_plan(plan, selection, "build_model", parameters, as_json)
    finish(recorded, at, as_json, time.time() - began)


def run_plan(plan: "Plan", selection: Selection, flow: str, parameters: dict[str, Any], as_json: bool) -> Run:
    """Runs by a flow what of the plan is selected and does not stand; returns the run's record.

    Args:
        plan: as it is before.
        selection: of its nodes.
        flow: the file in flows/, and the flow in it.
        parameters: the flow's, but for the store and `refresh`: the plan has just moved the pin.
        as_json: shows nothing meanwhile.
    """
    began, at = time.time(), plan.store
    chosen = select(plan, selection)
    if not chosen.to_run:
        finished = record_of_hits(plan, began)
        write_run(at, finished)
        return finished
    if not as_json:
        from tasks.estimate import estimate

        estimates = {name: guess for name, guess in estimate(plan).items() if name in chosen.to_run}
        show.console().print(show.estimate_line(plan, estimates), soft_wrap=True)
    state = run_flow(
        flow,
        {**parameters, "store": at.url, "refresh": False},
        needs_head=parameters["address"] is None and not os.environ.get("HEADRACE_RAY_ADDRESS"),
        rows={name: plan.nodes[name].state for name in chosen.nodes},
        live=not as_json,
    )
    recorded = _latest(at, plan.recipe.name, began)
    if recorded is None:
        print(f"error: {state}", file=sys.stderr)
        raise typer.Exit(1)
    return recorded


def run_flow(flow: str, parameters: dict[str, Any], needs_head: bool, rows: dict[str, str], live: bool) -> str:
    """Runs a flow, by its name, in this process against a Prefect server; returns its final state in words."""
    from flows.cli.board import Board
    from tasks import local
    from tasks.events import listening

    with Board(rows, live) as board, listening(board.show):
        board.say("starting the Prefect server and the Ray head")
        with ThreadPoolExecutor() as pool:
            servers = [] if os.environ.get("PREFECT_API_URL") else [pool.submit(local.prefect_server)]
            servers += [pool.submit(local.ray_head)] if needs_head else []
            for server in servers:
                os.environ.update(server.result().environment)
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        from prefect import tags

        from flows.build_model import mark_crashed_runs, process_tags

        for name in mark_crashed_runs():
            board.say(f"run {name} ended without saying so: marked Crashed")
        board.say(f"Prefect {os.environ['PREFECT_API_URL'].removesuffix('/api')}")
        with tags("headrace", *process_tags()):
            state = getattr(importlib.import_module(f"flows.{flow}"), flow)(**parameters, return_state=True)
    return f"{state.name}: {state.message}"


def record_of_hits(plan: "Plan", began: float) -> Run:
    """The record of a run that found everything standing."""
    from tasks.node import task_of

    nodes = {}
    for name, node in plan.nodes.items():
        headline = task_of(node.kind).headline(node.manifest) if node.manifest else ""
        state = "HIT" if node.manifest else "SKIPPED"
        nodes[name] = RunNode(node=node.kind, key=node.key, payload=node.payload, state=state, headline=headline)
    return Run(
        id=new_run_id(plan.recipe.name, began),
        recipe=plan.recipe.name,
        overrides=plan.recipe.overrides,
        started=began,
        seconds=round(time.time() - began, 3),
        state="COMPLETED",
        nodes=nodes,
    )


def _latest(store: Store, recipe: str, began: float) -> Run | None:
    run = last_run_of(store, recipe)
    return run if run is not None and run.started >= began else None


def finish(run: Run, store: Store, as_json: bool, seconds: float) -> None:
    """What the run came to: the table of nodes, samples of the model, the report. Exits with 1 if a node failed."""
    if as_json:
        show.print_json(run_as_json(run, store))
    else:
        console = show.console()
        console.print(show.run_table(run))
        for prompt, text in samples_of(run, store):
            console.print(f"\n[bold]{_plain(_one_line(prompt))}[/] {_plain(_one_line(text))}")
        failed = {name: node.error for name, node in run.nodes.items() if node.state == "FAILED"}
        for name, error in failed.items():
            console.print(f"\n[bold red]{name} failed[/]: {_plain(error)}")
        console.print(f"\nrun {run.id} {run.state} in {show.duration(seconds)}")
        report = report_path(run, store)
        if report:
            console.print(f"report {report}", soft_wrap=True)
    check_completed(run)


def check_completed(run: Run) -> None:
    """Ends the command with 1 where a node failed, with 130 where the run was cancelled."""
    if run.state != "COMPLETED":
        raise typer.Exit(130 if run.state == "CANCELLED" else 1)


def run_as_json(run: Run, store: Store) -> dict[str, Any]:
    """The run's record without the nodes' payloads, and where its report is."""
    nodes = {name: node.model_dump(exclude={"payload"}) for name, node in run.nodes.items()}
    return {**run.model_dump(exclude={"nodes"}), "nodes": nodes, "report": report_path(run, store)}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def report_path(run: Run, store: Store) -> str | None:
    """Where the run's HTML page can be opened: a local path, or the store's URL."""
    for node in run.nodes.values():
        if node.node == "report" and node.state in {"HIT", "DONE"}:
            page = Checkpoint.open(store, "report", node.key).file("index.html")
            local = store.local_path(page.path)
            return str(local) if local else store.url_of(page.path)
    return None


def samples_of(run: Run, store: Store) -> list[tuple[str, str]]:
    """(prompt, continuation) of a few generated samples."""
    import json

    for node in run.nodes.values():
        if node.node == "evaluate" and node.state in {"HIT", "DONE"}:
            checkpoint = Checkpoint.open(store, "evaluate", node.key)
            for file in checkpoint.files("samples.json"):
                samples = json.loads(local_copy(store, file).read_text())
                return [(sample["prompt"], sample["continuation"]) for sample in samples[:NUM_SAMPLES]]
    return []
