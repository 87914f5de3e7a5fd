"""The files of a model that `from_pretrained` loads: weights as safetensors, configuration, generation defaults.

They are written here and not by `save_pretrained`, so that their bytes are a function of the model alone (transformers
adds its version) and so that no model has to be built to store one. Names and keys are transformers' own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.model import ModelSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File
from ray_jobs.model.positions import rope_parameters

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """What a model must know of its tokenizer."""

    num_tokens: int
    """Special tokens included."""
    eos_id: int
    """Ends a document."""
    bos_id: int | None
    """Begins one, where the tokenizer has such."""
    pad_id: int | None


ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "mpt": "MptForCausalLM"}
TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp8": "bfloat16"}


def config_values(spec: ModelSpec, num_tokens: int, dtype: str = "fp32") -> dict[str, Any]:
    """What `config.json` holds of the architecture.

    Args:
        spec: the architecture.
        num_tokens: tokens of the tokenizer, special ones included; the embedding has `spec.padded_vocabulary` rows.
        dtype: of the stored weights.
    """
    common = {
        "architectures": [ARCHITECTURES[spec.architecture]],
        "model_type": spec.architecture,
        "vocab_size": spec.padded_vocabulary(num_tokens),
        "tie_word_embeddings": spec.tied_embeddings,
        "initializer_range": spec.init_std,
        "dtype": TORCH_DTYPES[dtype],
    }
    if spec.architecture == "mpt":
        return {
            **common,
            "d_model": spec.hidden,
            "n_heads": spec.heads,
            "n_layers": spec.layers,
            "expansion_ratio": 4,
            "max_seq_len": spec.max_positions,
            "layer_norm_epsilon": spec.rms_norm_eps,
            "learned_pos_emb": False,
            "no_bias": True,
            "attn_config": {"alibi": True, "alibi_bias_max": 8},
        }
    return {
        **common,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_positions,
        "rope_parameters": rope_parameters(spec),
        "rms_norm_eps": spec.rms_norm_eps,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }


def model_files(
    spec: ModelSpec, vocabulary: Vocabulary, weights: Mapping[str, "Tensor"], dtype: str
) -> dict[str, File]:
    """`model.safetensors`, `config.json` and `generation_config.json`.

    Args:
        weights: by transformers' names, each tied matrix once.
        dtype: that of training: "fp32" are stored as fp32, "bf16" and "fp8" as bf16.
    """
    import torch
    from safetensors.torch import save

    special = {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
    }
    stored_as = getattr(torch, TORCH_DTYPES[dtype])
    stored = {name: tensor.to(stored_as).contiguous() for name, tensor in sorted(weights.items())}
    # Generation may pad with eos; in the configuration, where training reads it, eos as padding would never be learned.
    padding = vocabulary.eos_id if vocabulary.pad_id is None else vocabulary.pad_id
    return {
        "model.safetensors": File(save(stored, metadata={"format": "pt"})),
        "config.json": _json({**config_values(spec, vocabulary.num_tokens, dtype), **special}),
        "generation_config.json": _json({**special, "pad_token_id": padding, "do_sample": True}),
    }


def _json(values: dict[str, Any]) -> File:
    return File((json.dumps(values, indent=2) + "\n").encode())


def vocabulary_of(tokenizer: Checkpoint) -> Vocabulary:
    """Read from the tokenizer's own files.

    Raises:
        ValueError: the tokenizer has no end-of-text token, so a model could not learn to stop.
    """
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(tokenizer.read(tokenizer.file("tokenizer.json")).decode())
    config = json.loads(tokenizer.read(tokenizer.file("tokenizer_config.json")))

    def special(role: str) -> int | None:
        token = config.get(f"{role}_token")
        return None if token is None else made.token_to_id(token if isinstance(token, str) else token["content"])

    eos_id = special("eos")
    if eos_id is None:
        raise ValueError(
            "the tokenizer names no eos_token: a model could not learn where a document ends; train it with one"
        )
    return Vocabulary(made.get_vocab_size(), eos_id, special("bos"), special("pad"))


def tokenizer_files(tokenizer: Checkpoint) -> dict[str, File]:
    """The tokenizer node's files, to lie beside the weights."""
    stage = tokenizer.file("tokenizer.json").stage
    files = [file for file in tokenizer.manifest.outputs if file.stage == stage]
    return {file.name: File(tokenizer.read(file), file.rows) for file in files}


def link_model(model: Checkpoint, folder: Path) -> None:
    """Lays a node's model and tokenizer files out in `folder` for `from_pretrained`, as links to local copies."""
    for file in model.manifest.outputs:
        if file.stage == "model":
            (folder / file.name).symlink_to(model.local_path(file))


def context_of(model: "PreTrainedModel") -> int:
    """Positions that the model is meant for."""
    config: Any = model.config
    return int(config.max_seq_len if config.model_type == "mpt" else config.max_position_embeddings)


def load_model(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model in fp32 on the CPU or in its own dtype on the GPU, ready to evaluate, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if cuda else torch.float32)
    if cuda:
        torch.nn.Module.cuda(model)  # transformers wraps its own so that type checkers lose it
    return model.eval(), AutoTokenizer.from_pretrained(folder)
