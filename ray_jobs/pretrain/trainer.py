"""The training loop: FSDP2, gradient accumulation, clipping, checkpoints. It knows neither Ray nor Prefect.

Whoever calls `train` has set up a process group (torchrun's environment, Ray Train, or a group of one) and says where
samples come from and where checkpoints and metrics go. One step:

1. Step s trains on the samples s·G … s·G + G − 1 of the run's fixed order (G is the global batch), of which each rank
   takes an equal slice and works through it in micro-batches.
2. Losses are sums over tokens, and gradients are summed over ranks (FSDP's divide factor is 1). One all-reduce of six
   numbers then gives every rank the loss, the count of scored tokens and the gradient's norm; dividing by that count
   and clipping are one multiplication. So 1 batch of 8, 8 of 1 and 2 ranks of 4 give the same loss and norm up to
   rounding.
3. A checkpoint holds weights and AdamW's moments; all else is the step, from which samples and learning rate follow.

Shape suffixes: B sequences of a micro-batch, L tokens of a sequence.
"""

import itertools
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from configs.pretrain import PretrainSpec
from configs.size import model_size
from ray_jobs.model.architecture import decoder_layers, empty_model, initialise, materialise, transformers_config
from ray_jobs.model.float8 import to_float8
from ray_jobs.model.loss import LossModel
from ray_jobs.pretrain.curve import Segment, segments_of
from ray_jobs.pretrain.inputs import check_batch
from ray_jobs.pretrain.meter import Interval, Meter
from ray_jobs.pretrain.optimizer import (
    build_adamw,
    optimizer_tensors,
    set_optimizer_step,
)
from ray_jobs.pretrain.provenance import Cause, causes_of
from ray_jobs.pretrain.saving import Saver
from ray_jobs.pretrain.schedule import learning_rate
from ray_jobs.pretrain.step import take_step
from ray_jobs.pretrain.steps import DamagedStep, StepReceipt, StepStore
from ray_jobs.pretrain.tensors import load_step
from ray_jobs.tokenizer.loader import read_ahead

if TYPE_CHECKING:
    from ray_jobs.tokenizer.packing import PackedBatch

log = logging.getLogger("headrace")

# Up to this many parameters a layer's weights stay gathered between forward and backward: 4 GB in bf16, fewer than the
# activations of such a model, and gathering them again costs more than it saves.
RESHARD_ABOVE_PARAMETERS = 2_000_000_000
# torch's fused attention in bf16 on a CPU takes four times as long as plain products in the backward pass; but those
# hold the whole matrix of scores.
EAGER_ATTENTION_UP_TO = 512
PROGRESS_SECONDS = 1.0


class Samples(Protocol):
    """A fixed global order of training sequences."""

    def __len__(self) -> int:
        """Sequences of one epoch."""

    def batch(self, first: int, count: int) -> "np.ndarray | PackedBatch":
        """The samples first … first+count−1: windows, int64 [count, sequence_length + 1], or packed documents."""


class Curve(Protocol):
    """Where rank 0 puts the loss curve."""

    def add(self, record: dict[str, Any]) -> None: ...

    def flush(self) -> None: ...


class TrainingStopped(Exception):
    """The caller asked to stop; a checkpoint of this step stands."""

    def __init__(self, step: int):
        super().__init__(f"training stopped on request after step {step}; its checkpoint stands, run again to go on")
        self.step = step


@dataclass
class Position:
    """All that training resumes from, apart from tensors. JSON in the step's receipt."""

    step: int = 0
    interval: Interval = field(default_factory=Interval)
    segments: tuple[Segment, ...] = ()

    def to_state(self, spec: PretrainSpec, session: str) -> dict[str, Any]:
        first = self.segments[-1].last if self.segments else 0
        segments = (*self.segments, Segment(session, first, self.step))
        return {
            "interval": asdict(self.interval),
            "segments": [asdict(segment) for segment in segments],
            # Both follow from the step and the spec; written for whoever reads the receipt.
            "next_sample": self.step * spec.global_batch,
            "seed": spec.seed,
        }

    @classmethod
    def of_receipt(cls, receipt: StepReceipt) -> "Position":
        return cls(receipt.step, Interval(**receipt.state["interval"]), segments_of(receipt))


def train(
    spec: PretrainSpec,
    num_tokens: int,
    samples: Samples,
    steps: StepStore,
    device: torch.device,
    *,
    session: str | None = None,
    curve: Curve | None = None,
    micro_batch: int | None = None,
    shard_ranks: int | None = None,
    progress: Callable[..., None] = lambda done, total, unit, **extra: None,
    should_save: Callable[[], bool] = lambda: False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Position:
    """Trains to `spec.steps` from the newest sound checkpoint, or from the seed. Collective: every rank calls it.

    Args:
        spec: what is trained.
        num_tokens: the tokenizer's vocabulary, special tokens included.
        samples: the order of training sequences.
        steps: where training checkpoints lie.
        device: this rank's device.
        session: a name no other session of this node has; rank 0's counts, None draws one.
        curve: where rank 0 writes its metrics; other ranks give None.
        micro_batch: sequences held at once; None is the rank's whole slice of the global batch.
        shard_ranks: ranks that share one copy of the weights; None is all.
        progress: called by rank 0 with (done, total, unit, **figures), at most once a second.
        should_save: asked every step; where it is true on any rank, all ranks save and go on.
        should_stop: asked every step; once true on any rank, all ranks save and stop.

    Raises:
        ValueError: the batch does not fit the ranks or the corpus, a token is outside the vocabulary, or the loss is no
            longer a number; raised on every rank.
        TrainingStopped: `should_stop` said so.
        SaveFailed: a checkpoint could not be written; on every rank, at the next checkpoint or at the end.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    check_batch(spec, len(samples), world)
    session = _agree(session or secrets.token_hex(6))
    model, optimizer = build(spec, num_tokens, device, shard_ranks)
    tensors = checkpoint_tensors(model, optimizer)
    position = _restore(spec, steps, model, optimizer, tensors)
    if position.step:
        log.info("rank %d goes on from step %d", rank, position.step)
    share = spec.global_batch // world
    saver = Saver(steps, session, tensors, spec.checkpoints_kept, spec.checkpoint_permanent_every)
    meter = Meter(spec, num_tokens, len(samples), device, position.step, restarts=len(position.segments))
    told = time.monotonic()
    size = micro_batch or share
    with closing(saver), closing(read_ahead(samples, _requests(spec, position.step, share, size))) as batches:
        while position.step < spec.steps:
            step = position.step
            rate = learning_rate(step, spec.steps, spec.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            micro_batches = (
                _on_device(batch, num_tokens, device)
                for batch in itertools.islice(meter.waited(batches), math.ceil(share / size))
            )
            taken = take_step(model, optimizer, micro_batches, spec.optimizer.clip_norm, should_save(), should_stop())
            if not taken.finite:
                again = (samples.batch(*request) for request in _requests(spec, step, share, size, last=step + 1))
                causes = causes_of(model, (_on_device(batch, num_tokens, device) for batch in again))
                raise ValueError(_divergence(step, spec, causes, share, size))
            position.step += 1
            position.interval.add(taken, spec.optimizer.clip_norm)
            last = position.step == spec.steps
            if position.step % spec.log_every == 0 or last:
                record = meter.record(position.step, position.interval, rate, saver.take_pause())
                position.interval = Interval()
                if curve is not None:
                    curve.add(record)
                if rank == 0 and (last or time.monotonic() - told >= PROGRESS_SECONDS):
                    told = time.monotonic()
                    progress(
                        position.step,
                        spec.steps,
                        "steps",
                        loss=record["loss"],
                        tokens_per_second=record["tokens_per_second"],
                    )
            if last or taken.saves or position.step % spec.checkpoint_every == 0:
                if curve is not None:  # before the receipt: a resumed run goes on after these lines
                    curve.flush()
                saver.save(position.step, position.to_state(spec, session))
                if last or taken.stops:
                    saver.finish()
            if taken.stops and not last:
                raise TrainingStopped(position.step)
    return position


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
    for module in model.modules():
        if isinstance(module, FSDPModule) and world > 1:  # one rank would divide by 1, a pass over all gradients
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    materialise(model.model, device)
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


def checkpoint_tensors(model: LossModel, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """All that a checkpoint holds, by name; loading writes into these very tensors."""
    weights = {f"model.{name}": parameter for name, parameter in model.model.named_parameters()}
    return {**weights, **optimizer_tensors(model.model, optimizer)}


def _restore(
    spec: PretrainSpec,
    steps: StepStore,
    model: LossModel,
    optimizer: torch.optim.AdamW,
    tensors: dict[str, Tensor],
) -> Position:
    """Fills weights and moments from the newest checkpoint that is sound, else from the seed."""
    for receipt in _agree(steps.receipts() if dist.get_rank() == 0 else None):
        try:
            with torch.no_grad():
                load_step(steps, receipt, tensors)
        except DamagedStep as damage:
            log.warning("the checkpoint of step %d is passed over: %s", receipt.step, damage)
            if dist.get_rank() == 0:
                steps.withdraw(receipt)
            continue
        set_optimizer_step(optimizer, receipt.step)
        return Position.of_receipt(receipt)
    initialise(model.model, spec.seed)
    for state in optimizer.state.values():  # a damaged checkpoint may have filled some
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
    return Position()


def _agree(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def _requests(
    spec: PretrainSpec, step: int, share: int, size: int, last: int | None = None
) -> Iterator[tuple[int, int]]:
    """This rank's slices of all global batches from that step on, up to `last`: first sample and count of every
    micro-batch."""
    for first in range(step * spec.global_batch, (last or spec.steps) * spec.global_batch, spec.global_batch):
        for start in range(0, share, size):
            yield first + dist.get_rank() * share + start, min(size, share - start)


def _on_device(batch: "np.ndarray | PackedBatch", num_tokens: int, device: torch.device) -> tuple[Tensor, ...]:
    """inputs_BL and targets_BL, and positions_BL where documents are packed."""
    if isinstance(batch, np.ndarray):
        arrays: tuple[np.ndarray, ...] = (batch,)
    else:
        arrays = (batch.inputs_CL, batch.targets_CL, batch.positions_CL)
    largest = max(array.max() for array in arrays[:2])
    if largest >= num_tokens:
        raise ValueError(
            f"the training data hold token {largest}, but the tokenizer has {num_tokens} tokens: train on tokens that "
            "this tokenizer made"
        )
    tensors = tuple(torch.from_numpy(array) for array in arrays)
    if device.type == "cuda":  # from memory that is not pinned, the copies would wait for all that the GPU has to do
        tensors = tuple(tensor.pin_memory() for tensor in tensors)
    tensors = tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
    return (tensors[0][:, :-1], tensors[0][:, 1:]) if len(tensors) == 1 else tensors


def _divergence(step: int, spec: PretrainSpec, causes: list[Cause], share: int, size: int) -> str:
    """What happened, where, and what to do."""
    told = []
    for cause in causes:
        first = step * spec.global_batch + cause.rank * share + cause.micro_batch * size
        told.append(f"{cause} (samples {first} to {first + min(size, share - cause.micro_batch * size) - 1})")
    where = "; ".join(told) or "its gradient is too large when all ranks' are added up"
    return (
        f"training is not a finite number at step {step}, learning rate "
        f"{learning_rate(step, spec.steps, spec.optimizer):g}: {where}. Lower optimizer.learning_rate, lengthen "
        "warmup_steps, or set optimizer.z_loss to 1e-4"
    )
