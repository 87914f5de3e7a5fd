"""transformers' class of a ModelSpec, sharded or not, and its initial weights."""

import hashlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from configs.model import ModelSpec
from ray_jobs.model.files import config_values
from ray_jobs.model.positions import renew_frequencies
from ray_jobs.model.recompute import Recompute, set_recompute

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# The projections that write into the residual stream: two a layer.
RESIDUAL_PROJECTIONS = (
    *("self_attn.o_proj.weight", "mlp.down_proj.weight"),
    *("attn.out_proj.weight", "ffn.down_proj.weight"),  # MPT's
)


def transformers_config(spec: ModelSpec, num_tokens: int) -> "PreTrainedConfig":
    """transformers' configuration object, by the same values that `config.json` will hold."""
    from transformers import LlamaConfig, MptConfig, Qwen3Config

    values = config_values(spec, num_tokens)
    return {"llama": LlamaConfig, "qwen3": Qwen3Config, "mpt": MptConfig}[values.pop("model_type")](**values)


def empty_model(config: "PreTrainedConfig", recompute: Recompute = "none") -> "PreTrainedModel":
    """The model on the meta device: shapes without memory, to be sharded, then filled by `materialise`."""
    from transformers import LlamaForCausalLM, MptForCausalLM, Qwen3ForCausalLM

    classes = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM, "mpt": MptForCausalLM}
    with torch.device("meta"):
        model = classes[config.model_type](config)
    set_recompute(decoder_layers(model), recompute)
    return model


def materialise(model: "PreTrainedModel", device: torch.device) -> None:
    """Gives a (sharded) meta model memory on `device`; parameters hold garbage until they are initialised or loaded."""
    model.to_empty(device=device)
    if model.config.tie_word_embeddings:  # to_empty makes one parameter a module
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    renew_frequencies(model)


def decoder_layers(model: "PreTrainedModel") -> nn.ModuleList:
    """The model's layers, which are sharded and compiled one by one."""
    base: Any = model.base_model
    return base.blocks if model.config.model_type == "mpt" else base.layers


@torch.no_grad()
def initialise(model: "PreTrainedModel", seed: int) -> None:
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
