"""torchtitan's model, sharding, loss, optimizer settings and step, for tests/benchmarks/pretrain.py.

Its own `Trainer` reads its configuration, dataset and tokenizer; here its parts are put together in the order of its
`train_step` (0.2.2), on the tokens that the other variants get. Two ways, of which the faster counts: FSDP2 with bf16
parameters and fp32 reduction, as it trains on several GPUs, and autocast over fp32 parameters, as it does on one.
"""

import importlib
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from configs.model import ModelSpec


def parts() -> tuple[Any, Any, Any, Any]:
    """Its modules, imported without what of its packages wants datasets, torchdata and TensorBoard."""
    import torchtitan

    root = Path(torchtitan.__path__[0])
    for name in ("torchtitan.models.llama3", "torchtitan.protocols"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules.setdefault(name, package)
    protocol = importlib.import_module("torchtitan.protocols.model").ModelProtocol
    sys.modules.setdefault("torchtitan.protocols.train_spec", types.SimpleNamespace(ModelProtocol=protocol))  # type: ignore[arg-type]
    names = ("model.model", "model.args", "infra.parallelize")
    model, arguments, parallelize = (importlib.import_module(f"torchtitan.models.llama3.{name}") for name in names)
    return model, arguments, parallelize, importlib.import_module("torchtitan.distributed.utils")


def step_of(
    variant: Any,
    spec: ModelSpec,
    num_tokens: int,
    device: torch.device,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
) -> Callable[[int], Tensor]:
    model_module, arguments_module, parallelize, distributed = parts()
    # Its MLP's width is int(2/3 · 4 · dim) times a factor, rounded up to a multiple.
    arguments = arguments_module.TransformerModelArgs(
        dim=spec.hidden,
        n_layers=spec.layers,
        n_heads=spec.heads,
        n_kv_heads=spec.num_kv_heads,
        vocab_size=num_tokens,
        ffn_dim_multiplier=spec.intermediate / int(8 * spec.hidden / 3),
        multiple_of=1,
        norm_eps=spec.rms_norm_eps,
        rope_theta=spec.rope_theta,
        max_seq_len=variant.length,
    )
    with torch.device("meta"):
        model = model_module.Transformer(arguments)
    width = next(iter(model.layers.values())).feed_forward.w1.weight.shape[0]
    assert width in (spec.intermediate, spec.intermediate - 1), width
    compile_config = types.SimpleNamespace(backend="inductor")
    if variant.compile:
        parallelize.apply_compile(model, compile_config)
    if variant.sharded:
        mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("fsdp",))
        parallelize.apply_fsdp(model, mesh, torch.bfloat16, torch.float32, pp_enabled=False)
    model.to_empty(device=device)
    with torch.no_grad():
        model.init_weights(buffer_device=device)
    model.train()
    loss_function = importlib.import_module("torchtitan.components.loss").cross_entropy_loss
    if variant.compile:
        loss_function = torch.compile(loss_function, backend="inductor")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True, foreach=False
    )
    amp = torch.autocast(device.type, torch.bfloat16, enabled=not variant.sharded)

    def step(number: int) -> Tensor:
        optimizer.zero_grad()
        micro_batches = list(batches(number))
        valid = torch.stack([(targets != -100).sum() for _, targets in micro_batches]).sum()
        if variant.sharded:
            dist.all_reduce(valid)
        losses = []
        for inputs, targets in micro_batches:
            with amp:
                predicted = model(inputs)
                loss = loss_function(predicted, targets) / valid
            del predicted
            loss.backward()
            losses.append(loss.detach())
        distributed.clip_grad_norm_(list(model.parameters()), 1.0, foreach=True)
        optimizer.step()
        return torch.stack(losses).sum()

    return step
