"""Pretraining: what is trained, on how much, how."""

from collections.abc import Collection
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec
from configs.model import ModelSpec

EVAL_SETS = "eval_sets"
"""The slot of the sets whose questions are asked while training runs."""


class OptimizerSpec(Spec):
    """AdamW with decoupled decay, warm-up, and a rate that falls to a floor."""

    learning_rate: float = Field(default=4e-3, gt=0)
    """The peak, reached at the end of the warm-up."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """The last step's rate as a share of the peak."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Behind the warm-up. cosine: falls from the peak to the floor. wsd: stays at the peak, and falls in the last steps
    (Hu et al. 2024, arXiv:2404.06395), so that a longer training shares all of its steps before that."""
    decay_share: float = Field(default=0.2, gt=0, le=1)
    """Of wsd: the share of all steps in which the rate falls (a fifth: Hägele et al. 2024, arXiv:2405.18392)."""
    decay_shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    """Of wsd: how it falls; 1 − √x is the better one in Hägele et al., section 3."""
    warmup_steps: int = Field(default=30, ge=0)
    """Steps of linear warm-up."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of matrices only: norms, biases, other 1-D tensors and embeddings have none."""
    clip_norm: float = Field(default=1.0, gt=0)
    """The gradient's global norm is scaled down to this."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of mean(logsumexp(logits)²), which keeps logits from drifting (1e-4 is usual); 0 leaves it out."""

    @model_validator(mode="after")
    def _decay_is_of_wsd(self) -> Self:
        for name in ("decay_share", "decay_shape"):
            if self.schedule != "wsd" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of schedule wsd, and {self.schedule} has none: leave it out")
        return self


class SpikeSpec(Spec):
    """What counts as a loss spike, and what is done about it.

    A step deviates whose loss or gradient norm lies so many robust standard deviations above the median of the window
    before it. A spike is `lasting` steps in a row that do, or one whose loss is no number.
    """

    action: Literal["record", "rollback"] = "record"
    """record: training goes on; one whose loss is no number fails. rollback: training goes back to an earlier
    checkpoint and passes over the data around the spike."""
    window: int = Field(default=128, ge=32)
    """Steps by whose median and median absolute deviation the next is judged."""
    loss_deviations: float = Field(default=6.0, gt=0)
    """Above this many standard deviations a loss deviates."""
    norm_deviations: float = Field(default=20.0, gt=0)
    """The same of gradient norms, whose tail is longer: clipping stands most of them."""
    lasting: int = Field(default=3, ge=1)
    """Steps in a row that make a spike: a single odd batch does no harm that clipping does not stop."""
    rollback_steps: int = Field(default=100, ge=0)
    """The checkpoint that training goes back to lies at least so many steps before the spike (about 100 in Chowdhery et
    al. 2022, section 5.1)."""
    skip_before: int = Field(default=100, ge=0)
    """Batches before the spike's first that are passed over, back to the checkpoint at most."""
    skip_after: int = Field(default=100, ge=0)
    """Batches passed over behind the one at which the spike was found; with those before, 200 to 500 in the paper."""
    max_rollbacks: int = Field(default=5, ge=1)
    """More spikes than this are an error: it is no longer the data."""

    def reach(self, checkpoint_every: int) -> int:
        """How many steps back the checkpoint may lie that training goes back to."""
        return self.rollback_steps + self.lasting + checkpoint_every if self.action == "rollback" else 0


class EvaluationSpec(Spec):
    """What is measured while training runs. Training is the same with it and without, to the bit."""

    every: int = Field(default=200, ge=1)
    """Steps between evaluations, a multiple of log_every; the last step always has one. No step begins while one runs,
    nor is a request to stop answered: on all ranks it takes about as long as a third of a training step for every
    global batch of tokens that is scored."""
    max_documents: int = Field(default=200, ge=1, le=100_000)
    """Held-out documents scored: the first ones, in their order, as the node evaluate takes them. The context is
    sequence_length, of which every window after a document's first scores the second half."""
    num_domains: int = Field(default=6, ge=0)
    """Domains that bits per byte are told apart for, those with the most text; the others are put together. A domain is
    the host of the documents' URLs, or their source where they have none."""
    num_questions: int = Field(default=100, ge=0)
    """Multiple-choice questions asked of every set of the input eval_sets that has such: evenly spaced in the set.
    Without that input there are none."""


class PretrainSpec(Spec):
    """A decoder trained from scratch on the tokens node's sequences.

    The result is a function of this spec and its inputs: on CPUs to the bit, wherever it is interrupted, as long as the
    number of ranks, the micro-batch and the CPUs of a rank are the same. Others change the order of sums, and the
    result within rounding. The defaults are the demo's.
    """

    node: ClassVar[str] = "pretrain"
    version: ClassVar[int] = 1

    model: ModelSpec = Field(default_factory=ModelSpec)
    """The architecture."""
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    """Its optimizer and schedule."""
    spikes: SpikeSpec = Field(default_factory=SpikeSpec)
    """Which steps are loss spikes, and what is done about them."""
    attention_every: int | None = Field(default=None, ge=1)
    """Steps between looks at the attention of each layer (largest logit, mean entropy), one sequence a rank; a multiple
    of log_every. None never looks."""
    steps: int = Field(default=600, ge=1)
    """Optimizer steps."""
    global_batch: int = Field(default=16, ge=1)
    """Sequences a step, over all ranks and micro-batches."""
    sequence_length: int = Field(default=128, ge=2)
    """Tokens that one sequence trains on."""
    packing: Literal["concatenate", "best-fit"] = "concatenate"
    """What a sequence holds. concatenate: sequence_length tokens of all documents end to end, wherever they begin and
    end, and attention looks back over all of them. best-fit: whole documents, packed (Ding et al. 2024), of which only
    those longer than a sequence are cut; attention, positions and loss keep them apart. What is left over at the end of
    a sequence is not trained on, and is counted among the tokens trained (4 of 100,000 for a large crawl in sequences
    of 2,048)."""
    shuffle_run: int = Field(default=1, ge=1)
    """The order of samples shuffles runs of so many neighbouring sequences, whose documents are shuffled within their
    shard already. 1 shuffles every sequence by itself; 64 KB a run, such as 16 sequences of 2,048 tokens, is what
    reading from an object store takes to be fast (resources.tokens_from_store)."""
    dtype: Literal["fp32", "bf16", "fp8"] = "fp32"
    """Of the computation. bf16 keeps fp32 master weights, gradient reduction, norm and optimizer state. On a CPU with
    avx512_bf16 it takes two thirds of the time of fp32, on one without ten times as long. fp8 is bf16 with the layers'
    products in float8 (torchao: the extra float8; Ada or Hopper), and wants `compile`."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the initial weights and of the order of samples."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between training checkpoints; the last step always has one."""
    checkpoints_kept: int = Field(default=2, ge=1)
    """The newest checkpoints that are kept while training; older ones are deleted."""
    checkpoint_permanent_every: int | None = Field(default=None, ge=1)
    """Checkpoints at multiples of so many steps are kept for good, for studies of the training; a multiple of
    checkpoint_every. None keeps none."""
    log_every: int = Field(default=10, ge=1)
    """Steps between the lines of the loss curve; its values are means over these steps."""
    evaluation: EvaluationSpec | None = Field(default=None, exclude_if=lambda evaluation: evaluation is None)
    """Held-out bits per byte and the answers to a few questions, on the same curve. None measures nothing, and is no
    part of the key."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations that are computed again in the backward pass instead of being kept. full: all of a layer, a third
    more work for the least memory. selective: all but attention and the narrow products, a sixth more work for half of
    the memory (ray_jobs/model/recompute.py). The result is the same."""
    compile: bool = False
    """torch.compile each layer: a minute at the start, then about 1.5 times the speed on a GPU."""

    @model_validator(mode="after")
    def _fits_model(self) -> Self:
        if self.sequence_length > self.model.max_positions:
            raise ValueError(
                f"sequence_length ({self.sequence_length}) is more than model.max_positions "
                f"({self.model.max_positions}): raise max_positions or shorten the sequences"
            )
        if self.checkpoint_permanent_every and self.checkpoint_permanent_every % self.checkpoint_every:
            raise ValueError(
                f"checkpoint_permanent_every ({self.checkpoint_permanent_every}) must be a multiple of "
                f"checkpoint_every ({self.checkpoint_every}): no checkpoint is written between"
            )
        if self.attention_every and self.attention_every % self.log_every:
            raise ValueError(
                f"attention_every ({self.attention_every}) must be a multiple of log_every ({self.log_every}): its "
                "figures are part of the curve's lines"
            )
        if self.attention_every and self.model.architecture == "mpt":
            raise ValueError("mpt's attention cannot be looked at: leave out attention_every")
        if self.evaluation is not None and self.evaluation.every % self.log_every:
            raise ValueError(
                f"evaluation.every ({self.evaluation.every}) must be a multiple of log_every ({self.log_every}): what "
                "it measures stands in the curve's line of that step"
            )
        if self.packing == "best-fit" and self.shuffle_run > 1:
            raise ValueError(
                f"shuffle_run ({self.shuffle_run}) keeps neighbours of the stream together, and packing best-fit has "
                "none: set shuffle_run to 1, or packing to concatenate"
            )
        if self.packing == "best-fit" and self.model.architecture == "mpt":
            raise ValueError("mpt's attention cannot keep packed documents apart: set packing to concatenate")
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(
                f"optimizer.warmup_steps ({self.optimizer.warmup_steps}) must be less than steps ({self.steps})"
            )
        decaying = self.optimizer.decay_share * self.steps if self.optimizer.schedule == "wsd" else 0
        if self.optimizer.warmup_steps + decaying > self.steps:
            raise ValueError(
                f"warm-up ({self.optimizer.warmup_steps} steps) and decay ({decaying:g}) are more than all steps "
                f"({self.steps}): shorten optimizer.warmup_steps or optimizer.decay_share"
            )
        return self

    def takes(self, slot: str) -> bool:
        """eval_sets only where questions are asked: else it would change the key and nothing more."""
        return slot != EVAL_SETS or (self.evaluation is not None and self.evaluation.num_questions > 0)

    def check_inputs(self, slots: Collection[str]) -> None:
        """Raises ValueError where eval_sets is given and no question is asked."""
        if EVAL_SETS in slots and not self.takes(EVAL_SETS):
            raise ValueError(
                "inputs.eval_sets is given, and no question is asked: set evaluation.num_questions, or leave the input "
                "out"
            )
