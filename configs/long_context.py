"""Texts longer than a model was trained on: where each way of counting positions breaks."""

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec

TRAINED: Final = "trained"
CUT: Final = "cut"
"""As trained, with no more than a training length of each text in sight: what all methods are compared with."""
Method = Literal["trained", "linear", "ntk", "dynamic", "yarn", "llama3"]

LABELS: dict[str, str] = {
    CUT: "cut to the training length",
    TRAINED: "as trained",
    "linear": "PI",
    "ntk": "NTK-aware",
    "dynamic": "dynamic NTK",
    "yarn": "YaRN",
    "llama3": "Llama 3",
}
"""What readers are told."""


class PasskeySpec(Spec):
    """A random number is told in a long text and asked for at its end (Mohtashami and Jaggi 2023, arXiv:2305.16300)."""

    depths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where in the text it is told: 0 at the beginning, 1 right before the question."""
    num_trials: int = Field(default=20, ge=0, le=10_000)
    """Numbers asked for at each depth and length, each in another text; 0 leaves the passkey out."""
    num_distractors: int = Field(default=9, ge=1, le=1000)
    """Other numbers of as many tokens, among which the right one should be the likeliest: by chance it is in one of
    num_distractors + 1."""
    num_digits: int = Field(default=5, ge=2, le=18)
    """Of a number."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the numbers."""


class LongContextSpec(Spec):
    """The loss by position, and a passkey, at some multiples of the training length, for each model and method.

    A method is chosen at run time for a model with rotary positions; one with ALiBi is measured as it was trained.
    """

    node: ClassVar[str] = "long-context"
    version: ClassVar[int] = 1

    methods: tuple[Method, ...] = Field(default=(TRAINED, "linear", "ntk", "dynamic", "yarn", "llama3"), min_length=1)
    """trained: positions go on as in training. The others stretch rotary positions by as much as the text is longer
    than the training length (configs/model.py tells what each does), and are the same as `trained` within it. dynamic
    reads a text anew for each stretch of positions, and takes several times as long as any other."""
    lengths: tuple[Annotated[float, Field(ge=1)], ...] = Field(default=(1.0, 2.0, 4.0), min_length=1)
    """Of texts, in training lengths; whole numbers of the stretches that `buckets` cuts one into."""
    training_length: int | None = Field(default=None, ge=8)
    """Tokens of a training sequence; None takes what the models' pretrain nodes say."""
    buckets: int = Field(default=4, ge=1)
    """Stretches of positions that the loss is told for, in one training length."""
    max_texts: int = Field(default=64, ge=2)
    """Texts that are scored, each as long as the longest: evenly spaced among all that the held-out documents make."""
    max_documents: int = Field(default=20_000, ge=1)
    """Held-out documents that texts are made of: the first ones, in their order."""
    batch: int = Field(default=8, ge=1)
    """Texts computed at once."""
    margin: float = Field(default=0.1, gt=0)
    """Nats a token. A method breaks at the first stretch of positions whose loss is more than this above that of the
    model as trained on the same tokens, with no more than a training length of them in sight."""
    bootstrap_samples: int = Field(default=1000, ge=0)
    """Resamplings of texts behind 95% intervals, whose lower end must be above the margin; 0 goes by values alone."""
    passkey: PasskeySpec = Field(default_factory=PasskeySpec)
    """The passkey."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the bootstrap."""

    @model_validator(mode="after")
    def _lists_are_sound(self) -> Self:
        for name in ("methods", "lengths"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: leave it out")
        for length in self.lengths:
            if abs(length * self.buckets - round(length * self.buckets)) > 1e-9:
                raise ValueError(
                    f"lengths has {length:g}, which is no whole number of 1/{self.buckets}: change it, or buckets"
                )
        if TRAINED not in self.methods:
            raise ValueError(f"methods leaves out {TRAINED}, which stands beside the others: add it")
        return self
