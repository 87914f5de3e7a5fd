"""headrace serve: a model behind OpenAI's API."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from flows.cli import options

Model = Annotated[
    str,
    typer.Argument(
        help="A run of the store (`last` is the newest; RUN:NODE one of its models), a node as pretrain@ and its key's "
        "16 digits, a folder of transformers' files, a .gguf file, or OWNER/NAME of the Hugging Face hub."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; auto is bf16 where the device computes with it.")]


def serve(
    model: Model = "last",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is reached from other machines.")
    ] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="What clients call the model.")] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N or MIN:MAX", help="Engines on Ray; between MIN and MAX as requests come.")
    ] = "1",
    target_ongoing: Annotated[
        int, typer.Option(min=1, help="Requests a replica, above which another one is started.")
    ] = 32,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs of a replica.")] = 1,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a replica; by default one where there are.")
    ] = None,
    api_keys_file: Annotated[
        str | None,
        typer.Option("--api-keys-file", help="A line a key. Without it HEADRACE_API_KEYS, and else all may ask."),
    ] = None,
    max_running: Annotated[int, typer.Option(min=1, help="Answers that a replica writes at once.")] = 64,
    max_queued: Annotated[int, typer.Option(min=0, help="Answers that wait for that; more are refused.")] = 256,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most that one answer may have.")] = None,
    kv_gb: Annotated[
        float | None, typer.Option("--kv-gb", help="Memory for keys and values, GiB. On a GPU by default what is free.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Annotated[str, typer.Option(help="headrace, or vllm where it is installed.")] = "headrace",
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Replicas on Ray, or one engine in this process.")] = True,
    store: options.StoreUrl = None,
) -> None:
    """Serves a model to OpenAI's clients: completions, chat, streaming, log-probabilities, models, metrics."""
    from configs.inference import EngineSpec
    from configs.serve import LimitsSpec, ServeSpec
    from tasks.defaults import store_url

    if backend not in {"headrace", "vllm"}:
        raise ValueError(f"there is no backend {backend}: choose headrace or vllm")
    least, most = _replicas(replicas)
    spec = ServeSpec.model_validate(
        {
            "model": model,
            "store": store or store_url(),
            "name": name,
            "device": device,
            "dtype": dtype,
            "engine": EngineSpec(max_running=max_running),
            "kv_gb": kv_gb,
            "limits": LimitsSpec(max_queued=max_queued, max_tokens=max_tokens),
            "replicas": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing": target_ongoing,
                "cpus": cpus,
                "gpus": gpus,
            },
            "host": host,
            "port": port,
            "api_keys_file": api_keys_file,
        }
    )
    if backend == "vllm":
        become("ray_jobs.serve", "vllm", spec.model_dump_json())
    if not ray:
        if most > 1:
            raise ValueError("without Ray there is one engine: leave out --replicas or --no-ray")
        become("ray_jobs.serve", "http", spec.model_dump_json())
    from tasks import local
    from tasks.defaults import ray_address

    if ray_address() is None:  # Ray reads how to reach it when it is imported
        os.environ.update(local.ray_head().environment)
    from tasks.serve import serve_on_ray

    serve_on_ray(spec)


def _replicas(text: str) -> tuple[int, int]:
    """N, or MIN:MAX."""
    least, _, most = text.partition(":")
    try:
        return int(least), int(most or least)
    except ValueError:
        raise ValueError(f"--replicas {text} is no number and no MIN:MAX, such as 1:4") from None


def become(module: str, *arguments: str) -> NoReturn:
    """This process goes on as one with torch, which answers to the terminal and its signals itself."""
    # torch's and numba's threads would spin beside those that work: on two busy cores SmolLM2-135M wrote 0.7 tokens/s
    # that way, and 5.2 with threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
