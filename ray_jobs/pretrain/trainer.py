"""The training loop: FSDP2, gradient accumulation, clipping, checkpoints. It knows neither Ray nor Prefect.

Whoever calls `train` has set up a process group (torchrun's environment, Ray Train, or a group of one) and says where
samples come from and where checkpoints and metrics go. One step:

1. Step s trains on the samples s·G … s·G + G − 1 of the run's fixed order (G is the global batch; batches that a loss
   spike made it skip apart), of which each rank takes a slice (`share.py`) and works through it in micro-batches.
2. Losses are sums over tokens, and gradients are summed over ranks (FSDP's divide factor is 1). One all-reduce of six
   numbers then gives every rank the loss, the count of scored tokens and the gradient's norm; dividing by that count
   and clipping are one multiplication. So 1 batch of 8, 8 of 1, 2 ranks of 4 and 3 ranks of 3, 3 and 2 give the same
   loss and norm up to rounding.
3. A checkpoint holds weights and AdamW's moments; all else is the position, from which samples and learning rate
   follow.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.pretrain import PretrainSpec
from ray_jobs.model.architecture import initialise
from ray_jobs.model.loss import LossModel
from ray_jobs.pretrain.attention import attention_figures
from ray_jobs.pretrain.inputs import check_batch
from ray_jobs.pretrain.meter import Interval, Meter
from ray_jobs.pretrain.micro_batches import on_device
from ray_jobs.pretrain.optimizer import set_optimizer_step
from ray_jobs.pretrain.position import Position
from ray_jobs.pretrain.provenance import Cause, causes_of
from ray_jobs.pretrain.saving import Saver
from ray_jobs.pretrain.schedule import learning_rate
from ray_jobs.pretrain.sharded import build, checkpoint_tensors, reshard
from ray_jobs.pretrain.share import idle_share, share_of
from ray_jobs.pretrain.spikes import Spike, batches_between, hole_of, newest_target
from ray_jobs.pretrain.step import Taken, take_step
from ray_jobs.pretrain.steps import DamagedStep, StepStore
from ray_jobs.pretrain.tensors import load_step
from ray_jobs.tokenizer.loader import read_ahead

if TYPE_CHECKING:
    from ray_jobs.tokenizer.packing import PackedBatch

log = logging.getLogger("headrace")

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


def train(
    spec: PretrainSpec,
    num_tokens: int,
    samples: Samples,
    steps: StepStore,
    device: torch.device,
    *,
    session: str | None = None,
    curve: Curve | None = None,
    evaluate: Callable[[LossModel, int], dict[str, Any]] = lambda model, step: {},
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
        evaluate: called by every rank with the model and the steps taken, wherever the curve has a line; returns what
            the line says beside. It may not change the model.
        micro_batch: sequences held at once; None is the rank's whole slice of the global batch.
        shard_ranks: ranks that share one copy of the weights; None is all.
        progress: called by rank 0 with (done, total, unit, **figures), at most once a second.
        should_save: asked every step; where it is true on any rank, all ranks save and go on.
        should_stop: asked every step; once true on any rank, all ranks save and stop.

    Raises:
        ValueError: the batch does not fit the ranks or the corpus, a token is outside the vocabulary, the loss is no
            longer a number, or it spiked too often; raised on every rank.
        TrainingStopped: `should_stop` said so.
        SaveFailed: two checkpoints in a row could not be written, or the last one; on every rank.
    """
    check_batch(spec, len(samples), dist.get_world_size())
    training = _Training(
        spec, num_tokens, samples, steps, device, session, curve, evaluate, micro_batch, shard_ranks, progress
    )
    with closing(training.saver):
        try:
            while training.position.step < spec.steps:
                spike = training.take_steps(should_save, should_stop)
                if spike is not None:
                    training.go_back(spike)
        except ValueError:  # the last lines tell how it came to that
            if curve is not None:
                curve.flush()
            raise
    return training.position


class _Training:
    """One session of a training, on one rank."""

    def __init__(
        self,
        spec: PretrainSpec,
        num_tokens: int,
        samples: Samples,
        steps: StepStore,
        device: torch.device,
        session: str | None,
        curve: Curve | None,
        evaluate: Callable[[LossModel, int], dict[str, Any]],
        micro_batch: int | None,
        shard_ranks: int | None,
        progress: Callable[..., None],
    ):
        self.curve, self.evaluate, self.progress = curve, evaluate, progress
        self.spec, self.num_tokens, self.samples, self.steps, self.device = spec, num_tokens, samples, steps, device
        self.rank, world = dist.get_rank(), dist.get_world_size()
        self.session = _agree(session or secrets.token_hex(6))
        self.model, self.optimizer = build(spec, num_tokens, device, shard_ranks)
        self.tensors = checkpoint_tensors(self.model, self.optimizer)
        self.position = self._restore()
        if self.position.step:
            log.info("rank %d goes on from step %d", self.rank, self.position.step)
        self.micro_batch, self.share = micro_batch, share_of(spec.global_batch, self.rank, world, micro_batch)
        if self.rank == 0 and spec.global_batch % world:
            lost = 100 * idle_share(spec.global_batch, world)
            log.warning(
                "%.0f%% of the work is lost: %d ranks do not divide %d sequences", lost, world, spec.global_batch
            )
        self.saver = Saver(
            steps,
            self.session,
            self.tensors,
            spec.checkpoints_kept,
            spec.checkpoint_permanent_every,
            spec.spikes.reach(spec.checkpoint_every),
        )
        restarts = len(self.position.segments)
        self.meter = Meter(spec, num_tokens, len(samples), device, self.position.step, restarts)
        self.told = time.monotonic()
        self.seen: tuple[Tensor, ...] = ()
        """The first sequence of the last step, for a look at how it is attended to."""

    def take_steps(self, should_save: Callable[[], bool], should_stop: Callable[[], bool]) -> Spike | None:
        """To the end, or to a spike that is to be gone back from."""
        spec, position = self.spec, self.position
        order = batches_between(position.step, spec.steps, position.spikes.holes)
        with closing(read_ahead(self.samples, self.share.requests(order))) as batches:
            while position.step < spec.steps:
                rate = learning_rate(position.step, spec.steps, spec.optimizer)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                micro_batches = itertools.islice(self.meter.waited(batches), self.share.num_micro_batches)
                taken = take_step(
                    self.model,
                    self.optimizer,
                    self._on_device(micro_batches),
                    spec.optimizer.clip_norm,
                    should_save() or self.saver.failed,
                    should_stop(),
                )
                spike = position.spikes.window.add(spec.spikes, position.step, taken.loss, taken.norm)
                if not taken.finite:
                    self._tell_divergence()
                if spike is not None and spec.spikes.action == "rollback":
                    return spike
                if spike is not None:
                    position.spikes.spikes.append(spike)
                    self._log("%s", spike)
                self._after(taken, rate)
        return None

    def _after(self, taken: Taken, rate: float) -> None:
        """What follows a step: a line of the curve, a checkpoint, the end of a training that is to stop."""
        spec, position = self.spec, self.position
        position.step += 1
        position.interval.add(taken, spec.optimizer.clip_norm)
        last = position.step == spec.steps
        saves = last or taken.saves or position.step % spec.checkpoint_every == 0
        if saves:  # before the curve's line, which tells its pause
            self.saver.copy(position.step)
        if position.step % spec.log_every == 0 or last:
            self._tell(rate, last)
        if saves:
            if self.curve is not None:  # before the receipt: a resumed run goes on after these lines
                self.curve.flush()
            self.saver.write(position.to_state(spec, self.session))
            if last or taken.stops:
                self.saver.finish()
        if taken.stops and not last:
            raise TrainingStopped(position.step)

    def _tell(self, rate: float, last: bool) -> None:
        """A line of the curve, and progress."""
        spec, position = self.spec, self.position
        record = self.meter.record(position, rate, self.saver.take_pause())
        record |= self.meter.apart(lambda: self.evaluate(self.model, position.step))
        if spec.attention_every and position.step % spec.attention_every == 0:
            record |= self.meter.apart(lambda: attention_figures(self.model, self.seen))
        reshard(self.model)
        position.interval = Interval()
        if self.curve is not None:
            self.curve.add(record)
        if self.rank == 0 and (last or time.monotonic() - self.told >= PROGRESS_SECONDS):
            self.told = time.monotonic()
            self.progress(
                position.step,
                spec.steps,
                "steps",
                loss=record["loss"],
                tokens_per_second=record["tokens_per_second"],
            )

    def go_back(self, spike: Spike) -> None:
        """To a checkpoint before the spike; the data around it are passed over from now on. Collective.

        Nothing records the decision before the next checkpoint does: a training that is cut off between comes to the
        same spike, and decides the same.
        """
        spec, known = self.spec.spikes, self.position.spikes
        if known.num_rollbacks >= spec.max_rollbacks:
            raise ValueError(
                f"{known.num_rollbacks + 1} loss spikes, more than spikes.max_rollbacks ({spec.max_rollbacks}): "
                f"{'; '.join(map(str, [*known.spikes, spike]))}. Passing over data does not help any more: lower "
                "optimizer.learning_rate, or take model.architecture qwen3, whose attention logits are bounded"
            )
        self.saver.settle("training goes back behind it")
        target = newest_target(spec, spike, self.spec.checkpoint_every)
        self.position = self._restore(target)
        if self.rank == 0:
            for receipt in self.steps.receipts():
                if receipt.step > target:
                    self.steps.withdraw(receipt)
        hole = hole_of(spec, spike, target, known.holes)
        spike = spike.gone_back(self.position.step, hole)
        self.position.spikes.spikes = [*known.spikes, spike]
        # What is saved from here on has names of its own, not those of what was withdrawn.
        self.saver.session = f"{self.session}-{self.position.spikes.num_rollbacks}"
        self.meter.go_back(self.position.step)
        self._log("%s", spike)

    def _restore(self, newest: int | None = None) -> Position:
        """Fills weights and moments from the newest checkpoint that is sound, of those up to step `newest`, else from
        the seed."""
        for receipt in _agree(self.steps.receipts() if self.rank == 0 else None):
            if newest is not None and receipt.step > newest:
                continue
            try:
                with torch.no_grad():
                    load_step(self.steps, receipt, self.tensors)
            except DamagedStep as damage:
                log.warning("the checkpoint of step %d is passed over: %s", receipt.step, damage)
                if self.rank == 0:
                    self.steps.withdraw(receipt)
                continue
            set_optimizer_step(self.optimizer, receipt.step)
            return Position.of_receipt(receipt)
        initialise(self.model.model, self.spec.seed)
        set_optimizer_step(self.optimizer, 0)
        for state in self.optimizer.state.values():  # a damaged checkpoint may have filled some
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()
        return Position()

    def _on_device(self, batches: Iterable["np.ndarray | PackedBatch"]) -> Iterator[tuple[Tensor, ...]]:
        for number, batch in enumerate(batches):
            tensors = on_device(batch, self.num_tokens, self.device, self.share.ignored_of(number))
            if number == 0:
                self.seen = tuple(tensor[:1] for tensor in tensors)
            yield tensors

    def _tell_divergence(self) -> None:
        """Where a step stopped being a number. Collective. Raises ValueError where that ends the training."""
        spec, position = self.spec, self.position
        batch = position.batch
        again = (self.samples.batch(*request) for request in self.share.requests([batch]))
        causes = causes_of(self.model, self._on_device(again))
        words = _divergence(position.step, batch, spec, causes, self.micro_batch)
        if spec.spikes.action == "record":
            raise ValueError(words)
        self._log("%s", words)

    def _log(self, form: str, *values: Any) -> None:
        if self.rank == 0:
            log.warning(form, *values)


def _agree(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def _divergence(step: int, batch: int, spec: PretrainSpec, causes: list[Cause], micro_batch: int | None) -> str:
    """What happened, where, and what to do."""
    told = []
    for cause in causes:
        samples = ""
        if cause.rank is not None and cause.micro_batch is not None:
            share = share_of(spec.global_batch, cause.rank, dist.get_world_size(), micro_batch)
            of_rank = share.samples_of(batch, cause.micro_batch)
            samples = f" (samples {of_rank.start} to {of_rank.stop - 1})"
        told.append(f"{cause}{samples}")
    where = "; ".join(told) or (
        "a second pass over the same batch gave numbers, so it was a norm beyond fp32, or a fault of the hardware or "
        "of compiled layers"
    )
    return (
        f"training is not a finite number at step {step}, learning rate "
        f"{learning_rate(step, spec.steps, spec.optimizer):g}: {where}. Lower optimizer.learning_rate, lengthen "
        "warmup_steps, or set optimizer.z_loss to 1e-4"
    )
