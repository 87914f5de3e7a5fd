"""headrace analyse: what a model does, measured on a real run."""

from typing import Annotated, Any

import typer

from configs.analyse import PROMPT
from flows.cli import options
from flows.cli.serve import Device, Dtype, Model, become

app = typer.Typer(help="What a model does, measured: keys and values, ways of decoding, forms of prompts.")
Prompt = Annotated[str, typer.Option(help="The text that is gone on with, or said.")]
Seed = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]


@app.command(epilog="Example: headrace analyse kv last --length 64 --length 256 --batch 1 --batch 16")
def kv(
    model: Model = "last",
    length: Annotated[list[int], typer.Option(min=1, help="New tokens. May be given often.")] = [32, 64, 128],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="Requests. May be given often.")] = [1, 4, 16, 64],  # noqa: B006
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """Time and memory with and without a cache by length, and contiguous against paged memory by batch."""
    _run(
        "kv", model=model, lengths=length, batches=batch, seed=seed, device=device, dtype=dtype, store=store, json=json
    )


@app.command(epilog="Example: headrace analyse decoding last --prompt 'Once upon a time'")
def decoding(
    model: Model = "last",
    prompt: Prompt = PROMPT,
    new_tokens: Annotated[int, typer.Option(min=1, help="Written by each way.")] = 64,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """Greedy, temperatures, top-k, top-p, min-p, all together and beam search, side by side on one prompt."""
    _run(
        "decoding",
        model=model,
        prompt=prompt,
        new_tokens=new_tokens,
        seed=seed,
        device=device,
        dtype=dtype,
        store=store,
        json=json,
    )


@app.command(epilog="Example: headrace analyse prompts last --prompt 'What is a headrace?'")
def prompts(
    model: Model = "last",
    prompt: Prompt = PROMPT,
    device: Device = "auto",
    dtype: Dtype = "auto",
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """A conversation in the forms of ChatML and Llama 2, with its token ids."""
    _run("prompts", model=model, prompt=prompt, device=device, dtype=dtype, store=store, json=json)


def _run(what: str, *, store: str | None, json: bool, **values: Any) -> None:
    from configs.analyse import AnalyseSpec
    from tasks.defaults import store_url

    spec = AnalyseSpec.model_validate({**values, "store": store or store_url(), "json_output": json})
    become("ray_jobs.analyse", what, spec.model_dump_json())
