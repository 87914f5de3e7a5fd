"""transformers' configuration and class of a ModelSpec, and its initial weights.

Every result loads with `from_pretrained`, because the classes and the names of tensors are transformers' own.
"""

import hashlib
import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from configs.model import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# The projections that write into the residual stream: two a layer.
RESIDUAL_PROJECTIONS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def transformers_config(
    spec: ModelSpec, num_tokens: int, eos_id: int | None = None, bos_id: int | None = None, dtype: str = "float32"
) -> "PreTrainedConfig":
    """The configuration that `config.json` holds.

    Args:
        spec: the architecture.
        num_tokens: tokens of the tokenizer, special ones included; the embedding has `spec.padded_vocabulary` rows.
        eos_id: the token that ends a document.
        bos_id: the token that begins one, where there is such.
        dtype: of the stored weights, by torch's name.
    """
    from transformers import LlamaConfig, Qwen3Config

    classes = {"llama": (LlamaConfig, "LlamaForCausalLM"), "qwen3": (Qwen3Config, "Qwen3ForCausalLM")}
    config_class, architecture = classes[spec.architecture]
    return config_class(
        architectures=[architecture],
        vocab_size=spec.padded_vocabulary(num_tokens),
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.num_kv_heads,
        head_dim=spec.head_width,
        max_position_embeddings=spec.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        rms_norm_eps=spec.rms_norm_eps,
        tie_word_embeddings=spec.tied_embeddings,
        initializer_range=spec.init_std,
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        dtype=dtype,
    )


def empty_model(config: "PreTrainedConfig", recompute: bool = False) -> "PreTrainedModel":
    """The model on the meta device: shapes without memory, to be sharded, then filled by `materialise`."""
    from transformers import LlamaForCausalLM, Qwen3ForCausalLM

    model_class = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}[config.model_type]
    with torch.device("meta"):
        model = model_class(config)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def materialise(model: "PreTrainedModel", device: torch.device) -> None:
    """Gives a (sharded) meta model memory on `device`; parameters hold garbage until they are initialised or loaded."""
    model.to_empty(device=device)
    if model.config.tie_word_embeddings:  # to_empty makes one parameter a module
        model.lm_head.weight = model.model.embed_tokens.weight
    # The rotary frequencies are no parameters: they are computed, not stored.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config, device=device)


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Fills every parameter from `seed`, the same numbers however the model is sharded and on whatever device.

    Matrices and embeddings are normal with `initializer_range`, projections into the residual stream with that over
    sqrt(2·layers) (Radford et al. 2019, section 2.3), norms are one, biases zero. Each parameter has a generator of its
    own on the CPU, seeded by its name, so that neither the order of parameters nor the number of ranks matters.
    """
    std = model.config.initializer_range
    residual_std = std / math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        generator = torch.Generator().manual_seed(_seed_of(name, seed))
        whole = torch.empty(parameter.shape, dtype=torch.float32)
        whole.normal_(0.0, residual_std if name.endswith(RESIDUAL_PROJECTIONS) else std, generator=generator)
        whole = whole.to(parameter.device, parameter.dtype)
        if isinstance(parameter, DTensor):
            # Every rank holds the same whole tensor already: nothing to send.
            whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.copy_(whole)


def _seed_of(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # manual_seed takes 63 bits
