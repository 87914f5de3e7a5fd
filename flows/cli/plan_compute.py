"""headrace plan-compute."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from configs.rates import read_rates
from configs.scaling import DEFAULT_LAW, PUBLISHED
from flows.cli import options, show
from tasks.compute import ComputePlan, Machines, hours_until, law_at
from tasks.compute import plan_compute as make_plan


def plan_compute(
    flops: Annotated[float | None, typer.Option("--flops", help="The compute, 6·parameters·tokens.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", help="Instead of --flops: hours of --gpus.")] = None,
    deadline: Annotated[
        datetime | None, typer.Option("--deadline", help="Instead of --hours: training from now to then, local time.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs that train.")] = 1,
    gpu: Annotated[str, typer.Option("--gpu", help="h100, h200, a100, l40s, 'h100 pcie' or 'h100 nvl'.")] = "h100",
    mfu: Annotated[
        float,
        typer.Option(
            "--mfu",
            help="Share of the GPU's dense bf16 peak that 6·N·D takes. The MFU of a training's curve counts attention "
            "too: take 6·N / (6·N + 12·layers·width·context) of it, 0.86 of it for 7B at 4096.",
        ),
    ] = 0.4,
    price: Annotated[
        float | None, typer.Option("--price", help="Dollars an hour of one GPU. Default: gpu_hour of the rates.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", help="Tokens a step.")] = 4 * 2**20,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            help="Your own law instead of published constants: the URL or path of a scaling node's checkpoint "
            "(…/nodes/scaling/KEY), or of a JSON file with E, A, B, alpha and beta.",
        ),
    ] = None,
    law: Annotated[
        str, typer.Option("--law", help=f"Published constants: {' or '.join(PUBLISHED)}, each named by its paper.")
    ] = DEFAULT_LAW,
    as_json: options.Json = False,
) -> None:
    """Says which size of model and how many tokens a compute is best spent on, and what that costs.

    By the scaling law L(N, D) = E + A/N^alpha + B/D^beta under 6·N·D = C. The default constants are those that
    Besiroglu et al. (2024) fitted to the runs of Hoffmann et al. (2022, "Chinchilla"); other data and tokenizers
    have others.
    """
    if sum(given is not None for given in (flops, hours, deadline)) != 1:
        raise ValueError("give the compute once: --flops, or --hours, or --deadline (these two with --gpus and --gpu)")
    if fit is None and law not in PUBLISHED:
        raise ValueError(f"--law {law} is not known: choose of {', '.join(PUBLISHED)}, or name a file by --fit")
    constants, source = (law_at(fit), fit) if fit is not None else (PUBLISHED[law], law)
    machines = Machines(gpu, gpus, mfu, read_rates().gpu_hour if price is None else price)
    machines.check()
    if deadline is not None:
        now = datetime.now(deadline.tzinfo)
        hours = hours_until(deadline, now)
    if flops is None:
        assert hours is not None
        flops = hours * 3600 * machines.flops
    made = make_plan(constants, flops, machines, batch_tokens)
    if as_json:
        content = {"law": constants.model_dump(), "source": source, "machines": vars(machines)}
        show.print_json({**content, "batch_tokens": batch_tokens, **made.to_json()})
        return
    best, console = made.best, show.console()
    console.print(f"{flops:.3g} FLOPs by the constants of {source}; {gpus} × {gpu} at {mfu:.0%} MFU", soft_wrap=True)
    console.print(
        f"best: {show.compact(best.parameters)} parameters, {show.compact(best.tokens)} tokens "
        f"({best.tokens_per_parameter:.1f} a parameter), loss {best.loss:.3f}, {best.steps:,} steps, "
        f"{show.duration(best.hours * 3600)}, {show.dollars(best.dollars)}",
        soft_wrap=True,
    )
    console.print("smaller models, cheaper to serve, trained longer:")
    console.print(alternatives_table(made))


def alternatives_table(plan: ComputePlan) -> Table:
    """A row for each smaller model: on the same compute, and trained on to the best one's loss."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("parameters", "same compute:\ntokens", "loss", "same loss:\ntokens", "compute", "time", "cost"):
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for each in plan.alternatives:
        same, longer = each.same_compute, each.same_loss
        cells = ["out of reach", "", "", ""]
        if longer is not None:
            factor = f"{longer.flops / plan.best.flops:.2f}×"
            cells = [
                show.compact(longer.tokens),
                factor,
                show.duration(longer.hours * 3600),
                show.dollars(longer.dollars),
            ]
        table.add_row(show.compact(same.parameters), show.compact(same.tokens), f"{same.loss:.3f}", *cells)
    return table
