"""A scaling study: trainings at some compute budgets and model sizes, and the law that their losses are fitted to."""

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from configs.base import Resources, Spec
from configs.evaluate import EvaluateSpec
from configs.model import ModelSpec
from configs.pretrain import PretrainSpec
from configs.size import model_size
from configs.tokenizer import TokenizerSpec

MODEL, EVALUATION = "model", "evaluation"
"""Slots of a scaling node: `model.RUN` is a run's training, `evaluation.RUN` its evaluation."""
LEAST_RUNS = 5
"""As many as the law has constants."""
LEAST_STEPS = 20
"""Whole steps then meet a budget within 2.5%, and a learning rate has a schedule."""
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")

# Of an evaluation only the model's loss and the unigram model's are read.
EVALUATE = {"max_baseline_tokens": 1_000_000, "sampling": {"num_samples": 0}}

Flops = Annotated[float, Field(gt=0)]


class ScalingSpec(Spec):
    """L(N, D) fitted to runs in two ways, and what it says of larger budgets.

    N counts all parameters and D the tokens trained on; a run's compute C is that of configs/size.py, attention
    included; L is the loss on held-out text, in nats a token.
    """

    node: ClassVar[str] = "scaling"
    version: ClassVar[int] = 1

    budgets: tuple[Flops, ...] = Field(min_length=2)
    """FLOPs of a training. The runs of one budget make a parabola: each run belongs to the nearest."""
    plan_budgets: tuple[Flops, ...] = ()
    """FLOPs that sizes and tokens are planned for; none takes 10, 100 and 1,000 times the largest budget."""
    bootstrap_samples: int = Field(default=200, ge=0)
    """Resamplings of runs behind the 95% intervals; 0, or fewer than ten runs, leave them out."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the resampling."""

    @model_validator(mode="after")
    def _budgets_are_apart(self) -> Self:
        if len(set(self.budgets)) < len(self.budgets):
            raise ValueError("budgets holds one twice: give each once")
        return self

    def check_inputs(self, slots: Collection[str]) -> None:
        """Raises ValueError where a training lacks its evaluation, or there are too few."""
        models, evaluations = (
            {slot.removeprefix(f"{kind}.") for slot in slots if slot.startswith(f"{kind}.")}
            for kind in (MODEL, EVALUATION)
        )
        for run in sorted(models ^ evaluations):
            lacks = EVALUATION if run in models else MODEL
            raise ValueError(f"inputs.{lacks} has no {run!r}: give every run its training and its evaluation")
        if len(models) < LEAST_RUNS:
            raise ValueError(
                f"inputs.{MODEL} names {len(models)} runs, and a law of {LEAST_RUNS} constants takes {LEAST_RUNS}, ten "
                "for intervals: name more"
            )


class StudySize(Spec):
    """A model of the study: what differs from `pretrain.model`."""

    hidden: int = Field(ge=2)
    """Width of the residual stream."""
    layers: int = Field(ge=1)
    """Decoder layers."""
    heads: int = Field(ge=1)
    """Query heads."""
    intermediate: int = Field(ge=1)
    """Width of the MLP."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Key and value heads; None is as many as `heads`."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Its peak, instead of what the study's rule gives."""


class ScalingStudy(ScalingSpec):
    """What a recipe holds of a study: every size is trained on every budget, and the runs are fitted.

    Each run is a pretrain node and an evaluate node of the graph, `pretrain-SIZE-BUDGET` and `evaluate-SIZE-BUDGET`.
    A run trains on budget / FLOPs a token tokens, by configs/size.py (attention and output head count, the input
    embedding does not), to whole steps; its schedule ends there, as that of a run cut short would be another's
    (Hoffmann et al. 2022, section 3.1).
    """

    sizes: dict[str, StudySize] = Field(min_length=2)
    """Name -> model, such as `60k: {hidden: 48, layers: 2, heads: 3, intermediate: 128}`."""
    leave_out: tuple[str, ...] = ()
    """Runs that are not trained, as SIZE-BUDGET: such as those far from the best size, or one that diverged."""
    pretrain: PretrainSpec = Field(default_factory=PretrainSpec)
    """What all runs have in common. The study sets the model's size, steps, learning rate and warm-up."""
    rate_hidden: int | None = Field(default=None, ge=1)
    """The width that `pretrain.optimizer.learning_rate` is for; None takes it for every size."""
    rate_exponent: float = Field(default=0.5, ge=0, le=2)
    """Other widths take that rate times (rate_hidden / hidden) to this power. 1 is the rule of Yang et al. 2022
    (arXiv:2203.03466, table 3) for the hidden matrices under Adam."""
    warmup_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of a run's steps that the learning rate rises in."""
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)
    """How each run's loss is measured. Held-out text, not the training's last batches: their mean is noisier, and
    belongs to text that a small corpus has shown before. Unless it says so, it writes no samples."""
    vocabulary_size: int | None = Field(default=None, ge=2)
    """The tokenizer's; None takes the recipe's `tokenizer.vocab_size`."""
    tokens: str = "tokens"
    """The node that all runs train on."""
    tokenizer: str = "tokenizer"
    """Its tokenizer."""
    pretrain_resources: Resources = Field(default_factory=lambda: Resources(workers=1))
    """Of each training. With one worker it is a process of its own, and as many run at once as the cluster holds."""
    evaluate_resources: Resources = Field(default_factory=lambda: Resources(workers=1))
    """Of each evaluation."""

    @model_validator(mode="after")
    def _makes_runs(self) -> Self:
        for name in self.sizes:
            if not RUN_NAME.fullmatch(name):
                raise ValueError(f"sizes calls one {name!r}: use lower-case letters, digits and -")
            try:
                self.model_of(name)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"sizes.{name}: {message}") from error
        for part, names in (("", ("steps",)), (".optimizer", ("warmup_steps",))):
            given = self.pretrain.optimizer if part else self.pretrain
            for name in names:
                if name in given.model_fields_set:
                    raise ValueError(f"pretrain{part}.{name} follows from the budget: leave it out")
        known = [run_name(size, budget) for budget in self.budgets for size in self.sizes]
        for name in self.leave_out:
            if name not in known:
                raise ValueError(f"leave_out names {name!r}, which is no run: there are {', '.join(known)}")
        if len(self.runs()) < LEAST_RUNS:
            raise ValueError(
                f"the grid has {len(self.runs())} runs, and a law of {LEAST_RUNS} constants takes {LEAST_RUNS}, ten "
                "for intervals: add sizes or budgets"
            )
        return self

    def runs(self) -> list[tuple[str, str, float]]:
        """(name, size, budget) of each run, the longest first: the shortest fill what is left of the time."""
        budgets = sorted(self.budgets, reverse=True)
        cells = [(run_name(size, budget), size, budget) for budget in budgets for size in self.sizes]
        return [cell for cell in cells if cell[0] not in self.leave_out]

    def learning_rate(self, size: str) -> float:
        """The peak of a size's runs, to four digits."""
        model = self.sizes[size]
        if model.learning_rate is not None:
            return model.learning_rate
        base = self.pretrain.optimizer.learning_rate
        factor = 1.0 if self.rate_hidden is None else (self.rate_hidden / model.hidden) ** self.rate_exponent
        return float(f"{base * factor:.4g}")

    def model_of(self, size: str) -> ModelSpec:
        shape = self.sizes[size].model_dump(exclude_unset=True, exclude={"learning_rate"})
        return ModelSpec.model_validate(self.pretrain.model.model_dump(exclude_unset=True) | shape)

    def steps(self, size: str, budget: float, vocabulary_size: int) -> int:
        """Whole steps of a run, the nearest to its budget. Raises ValueError where they are too few."""
        length, batch = self.pretrain.sequence_length, self.pretrain.global_batch
        flops = model_size(self.model_of(size), vocabulary_size, length).flops_per_token * length * batch
        steps = round(budget / flops)
        if steps < LEAST_STEPS:
            raise ValueError(
                f"budget {budget:g} is {budget / flops:.1f} steps of size {size}, and a run takes {LEAST_STEPS} "
                f"({LEAST_STEPS * flops:.2g} FLOPs): raise the budget, lower pretrain.global_batch, or set "
                f"leave_out=[{run_name(size, budget)}]"
            )
        return steps

    def sections(self, name: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's sections that the study stands for: two for each run, and the scaling node's under `name`.

        Args:
            name: the study's own.
            recipe: all sections as they are written.

        Raises:
            ValueError: the vocabulary is not known, a budget is too small for a size, or a shape is none.
        """
        vocabulary_size = self.vocabulary_size or self._vocabulary_in(recipe)
        data = {"tokens": self.tokens, "tokenizer": self.tokenizer}
        made: dict[str, Any] = {}
        for run, size, budget in self.runs():
            steps = self.steps(size, budget, vocabulary_size)
            common = self.pretrain.model_dump(mode="json", exclude_unset=True)
            optimizer = {"learning_rate": self.learning_rate(size), "warmup_steps": round(self.warmup_share * steps)}
            made[f"pretrain-{run}"] = {
                "kind": "pretrain",
                **common,
                "model": self.model_of(size).model_dump(mode="json", exclude_unset=True),
                "optimizer": {**common.get("optimizer", {}), **optimizer},
                "steps": steps,
                "inputs": data,
                "resources": self.pretrain_resources.model_dump(exclude_unset=True),
            }
        for run, _, _ in self.runs():
            made[f"evaluate-{run}"] = {
                "kind": "evaluate",
                **EVALUATE,
                **self.evaluate.model_dump(mode="json", exclude_unset=True),
                "inputs": {**data, "model": f"pretrain-{run}"},
                "resources": self.evaluate_resources.model_dump(exclude_unset=True),
            }
        taken = sorted(made.keys() & recipe.keys())
        if taken:
            raise ValueError(f"sizes makes a node {taken[0]}, which the recipe has already: call that size otherwise")
        runs = [run for run, _, _ in self.runs()]
        fields = {field: getattr(self, field) for field in ScalingSpec.model_fields if field in self.model_fields_set}
        inputs = {MODEL: {run: f"pretrain-{run}" for run in runs}, EVALUATION: {run: f"evaluate-{run}" for run in runs}}
        made[name] = {"kind": "scaling", **fields, "inputs": inputs}
        return made

    def _vocabulary_in(self, recipe: Mapping[str, Any]) -> int:
        if self.tokenizer not in recipe:
            raise ValueError(f"tokenizer is {self.tokenizer!r}, which is no node of the recipe: set vocabulary_size")
        section = recipe[self.tokenizer]
        written = section.get("vocab_size") if isinstance(section, Mapping) else None
        return written if isinstance(written, int) else int(TokenizerSpec.model_fields["vocab_size"].default)


def run_name(size: str, budget: float) -> str:
    """60k-25e10 for 2.5e11 FLOPs: without dots and signs."""
    mantissa, _, exponent = f"{budget:e}".partition("e")
    digits = mantissa.replace(".", "").rstrip("0") or "0"
    return f"{size}-{digits}e{int(exponent) - len(digits) + 1}".replace("e-", "em")
