"""The model and its optimizer over all ranks: FSDP2 layer by layer, in copies where that is wanted, compiled."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from configs.pretrain import PretrainSpec
from configs.size import model_size
from ray_jobs.model.architecture import decoder_layers, empty_model, materialise, transformers_config
from ray_jobs.model.float8 import to_float8
from ray_jobs.model.loss import LossModel
from ray_jobs.pretrain.optimizer import build_adamw, optimizer_tensors

# Up to this many parameters a layer's weights stay gathered between forward and backward: 4 GB in bf16, fewer than the
# activations of such a model, and gathering them again costs more than it saves.
RESHARD_ABOVE_PARAMETERS = 2_000_000_000
# torch's fused attention in bf16 on a CPU takes four times as long as plain products in the backward pass; but those
# hold the whole matrix of scores.
EAGER_ATTENTION_UP_TO = 512


def build(
    spec: PretrainSpec, num_tokens: int, device: torch.device, shard_ranks: int | None = None
) -> tuple[LossModel, torch.optim.AdamW]:
    """The sharded model, its parameters not yet filled, and its optimizer.

    Raises:
        ValueError: the ranks are no multiple of `shard_ranks`.
    """
    config = transformers_config(spec.model, num_tokens)
    if device.type == "cpu" and spec.dtype != "fp32" and spec.sequence_length <= EAGER_ATTENTION_UP_TO:
        config._attn_implementation = "eager"
    model = LossModel(empty_model(config, spec.recompute), spec.optimizer.z_loss, num_tokens)
    model.train()
    world = dist.get_world_size()
    mesh = _mesh(device, shard_ranks)
    size = model_size(spec.model, num_tokens, spec.sequence_length)
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": world > 1 and size.parameters > RESHARD_ABOVE_PARAMETERS,
    }
    if spec.dtype != "fp32":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in decoder_layers(model.model):
        if spec.dtype == "fp8":
            to_float8(layer, device)
        if spec.compile:
            layer.compile()
        fully_shard(layer, **options)
    fully_shard(model, **options)
    register_fsdp_forward_method(model, "nlls")
    one_buffer = _OneBuffer()
    for module in model.modules():
        if not isinstance(module, FSDPModule):
            continue
        if world == 1:
            module.set_custom_reduce_scatter(one_buffer)  # type: ignore[arg-type] # its base class is not public
        else:  # one rank would divide by 1, a pass over all gradients
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    materialise(model.model, device)
    if world == 1 and spec.dtype != "fp32":
        for parameter in model.parameters():
            _cast_once(parameter)
    return model, build_adamw(model.model, spec.optimizer)


def _mesh(device: torch.device, shard_ranks: int | None) -> DeviceMesh:
    """All ranks in a line, or groups of `shard_ranks` that hold a copy each: FSDP shards over the last dimension."""
    world = dist.get_world_size()
    if shard_ranks is None or shard_ranks == world:
        return init_device_mesh(device.type, (world,))
    if world % shard_ranks:
        raise ValueError(
            f"{world} ranks cannot be split into groups of {shard_ranks}: change resources.workers or "
            "resources.shard_ranks"
        )
    shape = (world // shard_ranks, shard_ranks)
    return init_device_mesh(device.type, shape, mesh_dim_names=("copies", "shards"))


class _OneBuffer:
    """Of a single rank: what goes into the reduction of gradients is what comes out of it, so that FSDP copies nothing;
    otherwise it would read and write all gradients once more, in fp32.

    One for all layers. With several micro-batches FSDP adds a buffer to the gradient in a stream of its own; the next
    layer's may be the same memory, so it waits for that stream.
    """

    def __init__(self) -> None:
        self._input: Tensor | None = None
        self._reducing: torch.cuda.Stream | None = None

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """FSDP asks for the input, then for the output."""
        if self._input is None:
            if self._reducing is not None:
                torch.cuda.current_stream(device).wait_stream(self._reducing)
            self._input = torch.empty(*size, dtype=dtype, device=device)
            return self._input
        if device.type == "cuda":
            self._reducing = torch.cuda.current_stream(device)
        output, self._input = self._input, None
        return output

    def __call__(self, *arguments: object, **options: object) -> None:
        raise AssertionError("one rank has nothing to reduce")


@torch.no_grad()
def _cast_once(parameter: Tensor) -> None:
    """Of a single rank: the weights that are computed with are written straight from the ones that are kept. FSDP casts
    them and then copies what it cast, as if it had been gathered.

    By FSDP2's extension point for tensors, which it looks for before the first forward pass.
    """
    kept: Any = parameter._local_tensor  # type: ignore[attr-defined] # a DTensor; to_local gives another object
    nothing = kept.new_empty(0)

    def gathered(_mesh: DeviceMesh) -> tuple[tuple[Tensor, ...], None]:
        return (nothing,), None

    @torch.no_grad()
    def cast(
        _gathered: tuple[Tensor, ...], _metadata: None, dtype: torch.dtype, *, out: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        if out is None:
            weights = kept.to(dtype)
            return weights, (weights,)
        with torch.autograd._unsafe_preserve_version_counter(out):
            out.copy_(kept)
        return None

    kept.fsdp_pre_all_gather, kept.fsdp_post_all_gather = gathered, cast


def reshard(model: LossModel) -> None:
    """Gives up the gathered weights that a forward pass without a backward pass leaves behind."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def checkpoint_tensors(model: LossModel, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """All that a checkpoint holds, by name; loading writes into these very tensors."""
    weights = {f"model.{name}": parameter for name, parameter in model.model.named_parameters()}
    return {**weights, **optimizer_tensors(model.model, optimizer)}
