"""headrace status, why, compare: what stands, and why it is as it is."""

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from flows.cli import options, show
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.lease import read_lease
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.runs import Run, list_runs, read_run
from ray_jobs.checkpoint.store import Store
from tasks.node import figure

if TYPE_CHECKING:
    from tasks.plan import Plan, PlannedNode
    from tasks.trace import TracedDocument

NUM_RUNS = 5
# Columns of audits that say why a page was dropped or cut; the others are what was measured of it.
REASONS = (
    *("rule", "value", "threshold", "source", "duplicate_of_url", "duplicate_of", "similarity", "verified_by"),
    *("words_removed", "first_source_url", "first_source", "contaminated_by"),
)


def status(store: options.StoreUrl = None, as_json: options.Json = False) -> None:
    """Shows the last runs, the nodes that are being computed, and the local services."""
    from tasks import local

    at = options.store_at(store)
    runs = [read_run(at, run_id) for run_id in list_runs(at)[-NUM_RUNS:]]
    nodes = [NodePath(kind, key) for kind in at.folders("nodes/") for key in at.folders(f"nodes/{kind}/")]
    leases = [(path.root, record) for path in nodes if (record := read_lease(at, path.lease)) is not None]
    services = local.running()
    if as_json:
        show.print_json(
            {
                "store": at.url,
                "runs": [run.model_dump(exclude={"nodes"}) for run in runs],
                "working": {path: record.model_dump() for path, record in leases},
                "services": {service.name: service.url for service in services},
            }
        )
        return
    console = show.console()
    console.print(f"store {at.url}", soft_wrap=True)
    for run in runs:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
        console.print(f"run {run.id}  {run.state}  {started}  {show.duration(run.seconds)}")
    for path, record in leases:
        done, total = record.progress.get("done", 0), record.progress.get("total", 0)
        console.print(
            f"working {path}  {done:,.0f} of {total:,.0f} {record.progress.get('unit', '')}  on {record.host}"
        )
    for service in services:
        console.print(f"service {service.name}  {service.url}")
    if not (runs or leases or services):
        console.print("nothing has run here yet: try `headrace run demo`")


def why(
    what: Annotated[
        str,
        typer.Argument(
            help="A node of the recipe; or a page: its URL, or its id as audits name it; or a token: "
            "tokens/SHARD@POSITION, or tokens@POSITION in all training shards end to end."
        ),
    ],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe that the node is in.")] = "demo",
    store: options.StoreUrl = None,
    overrides: options.Overrides = None,
    crawl: options.Crawl = None,
    files: options.Files = None,
    as_json: options.Json = False,
) -> None:
    """Says why a node would run or not, what it was made from, what it kept; what became of one page, and why; or from
    which record of the crawl a token came."""
    from tasks.lineage import is_place
    from tasks.plan import make_plan

    plan = make_plan(options.recipe_with(recipe, overrides, crawl, files), options.store_at(store))
    if what in plan.nodes:
        _why_node(plan.nodes[what], plan, as_json)
    elif is_place(what):
        _why_token(what, plan, as_json)
    elif "/" in what:
        _why_page(what, plan, as_json)
    else:
        raise ValueError(
            f"recipe {recipe} has no node {what!r}: it has {', '.join(plan.nodes)}; a page is named by its URL "
            "(https://…) or its id (crawl/file/offset), a token by its place (tokens/00003@123456)"
        )


def _why_node(planned: "PlannedNode", plan: "Plan", as_json: bool) -> None:
    manifest = planned.manifest
    if as_json:
        described = manifest.model_dump(exclude={"outputs"}) if manifest else None
        show.print_json(
            {"node": planned.name, "key": planned.key, "state": planned.state, "why": planned.why}
            | {"manifest": described}
        )
        return
    console = show.console()
    console.print(f"{planned.name} {planned.key[:16]} {show.styled(planned.state)}")
    for reason in planned.why or ("its key is what it was, and its checkpoint stands",):
        console.print(f"  {reason}", markup=False)
    for slot, upstream in planned.recipe_node.inputs.items():
        console.print(f"  input {slot}: {upstream} {plan.nodes[upstream].key[:16]} {plan.nodes[upstream].state}")
    for slot, (kind, digits) in planned.recipe_node.standing.items():
        console.print(f"  input {slot}: {kind} {digits[:16]}, a checkpoint of another run")
    if manifest is not None:
        _print_manifest(manifest)


def _why_page(page: str, plan: "Plan", as_json: bool) -> None:
    from tasks.trace import trace

    documents = trace(plan, page)
    if as_json:
        show.print_json({"documents": [dataclasses.asdict(document) for document in documents]})
        return
    for document in documents:
        _print_document(document)


def _why_token(place: str, plan: "Plan", as_json: bool) -> None:
    from configs.tokens import DOCUMENTS
    from tasks.lineage import trace_token

    token = trace_token(plan, place)
    if as_json:
        show.print_json(dataclasses.asdict(token))
        return
    console = show.console()
    console.print(f"{token.place}  token {token.token} {token.text!r}", markup=False, soft_wrap=True)
    end = token.document_start + token.document_length
    bytes_of_text = f"{token.text_start:,} to {token.text_end:,}"
    source = "" if token.source == DOCUMENTS else f" of source {token.source}"
    span = f"tokens {token.document_start:,} to {end:,}"
    console.print(f"  bytes {bytes_of_text} of the document{source} that is {span}")
    around = Text.assemble((token.before, "dim"), (token.text, "bold"), (token.after, "dim"))
    console.print(Padding(around, (0, 0, 0, 2)))
    _print_document(token.document)


def _print_document(document: "TracedDocument") -> None:
    console = show.console()
    console.print(document.url, markup=False, soft_wrap=True)
    where = f"byte {document.offset:,} of {document.archive}"
    console.print(f"  {document.id}, at {where}", markup=False, soft_wrap=True)
    for step in document.steps:
        reasons = {name: step.facts[name] for name in REASONS if name in step.facts}
        console.print(f"  {step.node:<8} {step.decision:<8} {_said(reasons)}", markup=False, soft_wrap=True)
        scores = _said({name: value for name, value in step.facts.items() if name not in reasons})
        console.print(Padding(Text(scores, style="dim"), (0, 0, 0, 20)))


def _said(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in facts.items())


def _print_manifest(manifest: Manifest) -> None:
    from tasks.node import task_of

    console = show.console()
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.started))
    console.print(f"  made {made} in {show.duration(manifest.seconds)} by code {manifest.code.digest[:12]}")
    console.print(f"  at {manifest.path.root}, content {manifest.content_digest[:16]}, {len(manifest.outputs)} files")
    for name, value in task_of(manifest.node).facts(manifest):
        console.print(f"  {name}: {value}", markup=False)
    for shard in manifest.quarantined:
        console.print(f"  without {shard.stage} shard {shard.shard}: {shard.reason}", markup=False)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Runs (`headrace status` lists them); `last` is the newest.")],
    store: options.StoreUrl = None,
    as_json: options.Json = False,
) -> None:
    """Shows what differs between runs: specs, and every node's figures side by side."""
    from tasks.plan import spec_changes

    at = options.store_at(store)
    if len(runs) < 2:
        raise ValueError("name at least two runs to compare, such as `headrace compare RUN last`")
    found = [read_run(at, name) for name in runs]
    names = list(dict.fromkeys(name for run in found for name in run.nodes))
    rows: list[dict[str, Any]] = []
    for name in names:
        nodes = [run.nodes.get(name) for run in found]
        first = nodes[0]
        for run, node in zip(found[1:], nodes[1:], strict=True):
            if first is not None and node is not None and first.payload["spec"] != node.payload["spec"]:
                changes = spec_changes(first.payload["spec"], node.payload["spec"])
                rows += [{"node": name, "figure": f"{change} (in {run.id})", "values": []} for change in changes]
        rows += _figures(at, found, name)
    if as_json:
        show.print_json({"runs": [run.id for run in found], "rows": rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "figure", *(run.id for run in found)):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row["node"], row["figure"], *(_number(value) for value in row["values"]))
    show.console().print(table)


def _figures(store: Store, runs: list[Run], name: str) -> list[dict[str, Any]]:
    """One row a counter or metric of the node that differs between the runs."""
    columns = []
    for run in runs:
        node = run.nodes.get(name)
        manifest = read_manifest(store, NodePath(node.node, node.key)) if node else None
        figures: dict[str, Any] = {}
        if manifest is not None:
            figures = {**manifest.counters, **manifest.metrics, "seconds": manifest.seconds}
        columns.append(figures)
    rows = []
    for name_of_figure in dict.fromkeys(key for column in columns for key in column):
        values = [column.get(name_of_figure) for column in columns]
        if len(set(map(str, values))) > 1:
            rows.append({"node": name, "figure": name_of_figure, "values": values})
    return rows


def _number(value: Any) -> str:
    return "–" if value is None else figure(value)
