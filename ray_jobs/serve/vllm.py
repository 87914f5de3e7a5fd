"""The same command with vLLM as its engine: this process becomes vLLM's own server."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

from configs.serve import ServeSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint, cache_folder
from ray_jobs.checkpoint.store import open_store
from ray_jobs.inference.loading import BASE_KINDS, found
from ray_jobs.model.files import link_model
from ray_jobs.serve.api_keys import read_keys

DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
TEMPLATE = "chat_template.jinja"


def hand_over(spec: ServeSpec) -> NoReturn:
    """Raises ValueError where vLLM is not installed, or cannot do what the spec says."""
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "vLLM is not installed here: pip install vllm, in an environment that has headrace too, or leave out "
            "--backend vllm"
        )
    if spec.replicas.max_replicas > 1:
        raise ValueError("vLLM is one server here: leave out --replicas, or start several behind a proxy")
    keys = read_keys(spec.api_keys_file)
    if len(keys) > 1:
        raise ValueError("vLLM takes one API key from its environment, not several: give one")
    if keys:  # not as an argument, which every user of the machine can read
        os.environ["VLLM_API_KEY"] = keys[0]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments(spec)]
    os.execv(sys.executable, command)


def arguments(spec: ServeSpec) -> list[str]:
    """Of vLLM's server."""
    folder, name = _folder(spec)
    return [
        *("--model", folder, "--served-model-name", spec.name or name),
        *("--host", spec.host, "--port", str(spec.port), "--dtype", DTYPES[spec.dtype]),
        *("--max-num-seqs", str(spec.engine.max_running)),
    ]


def _folder(spec: ServeSpec) -> tuple[str, str]:
    """What vLLM loads, a node's files laid out as links for it, and what clients call it."""
    where = found(spec.model, None if spec.store is None else open_store(spec.store))
    if isinstance(where, str):
        return where, where
    if isinstance(where, Path):
        return str(where.absolute()), where.stem if where.suffix == ".gguf" else where.resolve().name
    name = f"{where.node}-{where.key[:16]}"
    return str(_laid_out(where, cache_folder() / "served" / name)), name


def _laid_out(checkpoint: Checkpoint, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    link_model(checkpoint, folder)
    if checkpoint.node in BASE_KINDS:  # it has seen no conversation, though its tokenizer has a form for them
        (folder / TEMPLATE).unlink(missing_ok=True)
    return folder
