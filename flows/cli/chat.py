"""headrace chat: a conversation with a model in the terminal."""

import secrets
from typing import Annotated

import typer

from flows.cli import options
from flows.cli.serve import Device, Dtype, Model, become


def chat(
    model: Model = "last",
    system: Annotated[
        str | None, typer.Option("--system", help="What the model is told before the conversation.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Only the k likeliest tokens; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Only the likeliest tokens of this probability.")] = 0.95,
    min_p: Annotated[float, typer.Option(min=0, max=1, help="Only tokens this many times as likely as the first.")] = 0,
    repetition_penalty: Annotated[float, typer.Option(min=0, help="Above 1: what was said is less likely.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most that one answer has.")] = 1024,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text before which an answer ends. May be given often.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed and words give the same answers.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    store: options.StoreUrl = None,
) -> None:
    """Talks with a model: a run's, a folder's, a .gguf file's or the hub's. A base model goes on with a text."""
    from configs.inference import DecodingSpec
    from configs.serve import ChatSpec
    from tasks.defaults import store_url

    decoding = DecodingSpec(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_tokens,
        stop=tuple(stop or ()),
        seed=secrets.randbits(62) if seed is None else seed,
    )
    spec = ChatSpec.model_validate(
        {
            "model": model,
            "store": store or store_url(),
            "device": device,
            "dtype": dtype,
            "system": system,
            "decoding": decoding,
        }
    )
    become("ray_jobs.serve", "chat", spec.model_dump_json())
