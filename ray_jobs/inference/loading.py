"""A model and its tokenizer from wherever they are: a run of the store, a folder, a GGUF file, the Hugging Face hub."""

import importlib.util
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.runs import RunNode, read_run
from ray_jobs.checkpoint.store import Store
from ray_jobs.model.files import context_of, link_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]

MODEL_KINDS = ("ppo", "dpo", "sft", "pretrain")
"""Nodes that leave a model, the last trained first."""
BASE_KINDS = ("pretrain",)
"""Those whose model has seen no conversation, though its tokenizer may have a form for them."""
NODE = re.compile(r"(?P<kind>[a-z][a-z0-9-]*)@(?P<key>[0-9a-f]{16,64})")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of /proc/cpuinfo
PROBE = "headrace"


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to write."""

    name: str
    """What clients call it."""
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    end_tokens: tuple[int, ...]
    """Each ends an answer: of a text, and of a turn where there is a form for conversations."""
    first_tokens: tuple[int, ...]
    """Stand before every text that it was trained on, and are not put there by the tokenizer."""
    is_base: bool
    """Whether it has no form for conversations, or was not trained on any."""

    @property
    def num_tokens(self) -> int:
        """Of the vocabulary, without the embedding's padding."""
        return min(len(self.tokenizer), int(self.model.get_input_embeddings().num_embeddings))  # type: ignore[arg-type]

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return context_of(self.model)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, as those of training began."""
        tokens: Any = self.tokenizer.encode(text)
        return [*self.first_tokens, *tokens]

    def encode_chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation, up to where the assistant answers.

        Raises:
            ValueError: the model is a base model, or its form does not take these messages.
        """
        from jinja2 import TemplateError

        if self.is_base:
            raise ValueError(f"{self.name} is a base model, without a form for conversations: let it complete a text")
        try:
            text: Any = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(f"the model's form for conversations does not take these messages: {error}") from error
        tokens: Any = self.tokenizer.encode(text, add_special_tokens=False)
        return list(tokens)


def load(source: str, store: Store | None = None, device: Device = "auto", dtype: Dtype = "auto") -> Loaded:
    """Loads a model to write with.

    Args:
        source: a run of the store (its beginning, or "last"): its newest model; a node as `pretrain@` and its key's 16
            digits, or as RUN:NODE; a folder of transformers' files; a .gguf file; or a model of the hub, as OWNER/NAME.
        store: where runs and nodes are looked up.
        device: auto is the GPU where there is one.
        dtype: auto is bf16 where the device computes with it, else fp32.

    Raises:
        ValueError: there is no such model, or it cannot be loaded here.
        FileNotFoundError: the run's node was collected.
    """
    where = found(source, store)
    if isinstance(where, Checkpoint):
        return _from_node(where, device, dtype)
    if isinstance(where, str):
        return _from_transformers(where, where, device, dtype)
    if where.suffix == ".gguf":
        return _from_gguf(where, device, dtype)
    return _from_transformers(str(where), where.resolve().name, device, dtype)


def found(source: str, store: Store | None) -> Path | str | Checkpoint:
    """Where the model is: a folder or a .gguf file, the hub under a name, or a node's checkpoint. It raises as `load`
    does, but nothing is loaded, and the hub is not asked."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"there is no file {path}: name a .gguf file, or a folder of transformers' files")
        return path
    if path.is_dir():
        return path
    if source.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {source}: name one with a config.json, or a .gguf file")
    if "/" in source:
        return source
    if store is None:
        raise ValueError(f"{source} is no folder, no .gguf file and no OWNER/NAME of the hub: name one of these")
    return node_of(store, source)


def node_of(store: Store, source: str) -> Checkpoint:
    """The node's checkpoint that `source` names, as for `load`."""
    match = NODE.fullmatch(source)
    if match is not None:
        return Checkpoint.open(store, match["kind"], match["key"])
    run_id, _, wanted = source.partition(":")
    run = read_run(store, run_id)
    done = {name: node for name, node in run.nodes.items() if node.state in {"HIT", "DONE"}}
    models = {name: node for name, node in done.items() if node.node in MODEL_KINDS}
    if not models:
        raise ValueError(
            f"run {run.id} has no finished model ({', '.join(MODEL_KINDS)}): name another run, or run it again"
        )
    if wanted and wanted not in models:
        raise ValueError(f"run {run.id} has no finished model called {wanted}: it has {', '.join(models)}")
    node = models[wanted] if wanted else _newest(list(models.values()))
    return Checkpoint.open(store, node.node, node.key)


def _newest(models: list[RunNode]) -> RunNode:
    """The last trained kind's last."""
    return min(reversed(models), key=lambda node: MODEL_KINDS.index(node.node))


def device_of(choice: Device) -> "torch.device":
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no GPU here: choose device cpu, or install torch's build for the GPU")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def dtype_of(choice: Dtype, device: "torch.device") -> "torch.dtype":
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if choice != "auto":
        return named[choice]
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(BF16_FLAGS & _cpu_flags())
    return torch.bfloat16 if fast else torch.float32


def _cpu_flags() -> set[str]:
    information = Path("/proc/cpuinfo")  # Linux; elsewhere nothing is known of the CPU
    if not information.exists():
        return set()
    lines = [line for line in information.read_text().splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


def _from_node(checkpoint: Checkpoint, device: Device, dtype: Dtype) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        link_model(checkpoint, Path(folder))
        name = f"{checkpoint.node}-{checkpoint.key[:16]}"
        return _from_transformers(folder, name, device, dtype, kind=checkpoint.node)


def _from_gguf(path: Path, device: Device, dtype: Dtype) -> Loaded:
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("reading GGUF needs a package that is not installed: pip install 'headrace[gguf]'")
    import transformers

    options: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):  # of 5.23; before it weights were always unpacked
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return _from_transformers(str(path.parent), path.stem, device, dtype, gguf_file=path.name, model_options=options)


def _from_transformers(
    where: str,
    name: str,
    device: Device,
    dtype: Dtype,
    kind: str | None = None,
    gguf_file: str | None = None,
    model_options: dict[str, Any] | None = None,
) -> Loaded:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    chosen = device_of(device)
    files = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype_of(dtype, chosen), **files, **(model_options or {})
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(where, **files)
    except (OSError, ValueError) as error:  # what transformers raises for what is not there, or is no model
        raise ValueError(
            f"{where} is not a model that transformers loads: {str(error).splitlines()[0]}: name a folder with "
            "config.json, weights and tokenizer, a .gguf file, or OWNER/NAME of the hub with the network on"
        ) from error
    if chosen.type == "cuda":
        torch.nn.Module.cuda(model)  # transformers wraps its own so that type checkers lose it
    is_base = tokenizer.chat_template is None or kind in BASE_KINDS
    first = () if kind is None else _document_start(tokenizer)
    return Loaded(name, model.eval(), tokenizer, end_tokens(model, tokenizer), first, is_base)


def _document_start(tokenizer: Any) -> tuple[int, ...]:
    """Of a model trained here: the token that ends a document stands before the next."""
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end an answer: those that the model's generation defaults and its tokenizer name, and the special
    token that stands behind the assistant's words in a conversation."""
    named = [tokenizer.eos_token_id, model.config.eos_token_id, getattr(model.generation_config, "eos_token_id", None)]
    found: set[int] = set()
    for one in named:
        found |= set(one if isinstance(one, list | tuple) else [one]) - {None}
    if tokenizer.chat_template is not None:
        messages = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False)
        behind = tokenizer.encode(text.rpartition(PROBE)[2], add_special_tokens=False)
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        found |= set(behind[:1]) & special
    return tuple(sorted(found))
