"""Evaluation of a model on held-out text."""

from typing import ClassVar

from pydantic import Field

from configs.base import Spec


class SamplingSpec(Spec):
    """Continuations that the model writes."""

    num_samples: int = Field(default=5, ge=0, le=1000)
    """How many."""
    num_prompt_tokens: int = Field(default=16, ge=1)
    """Tokens of a held-out document's beginning that the model continues."""
    num_new_tokens: int = Field(default=96, ge=1)
    """The most that it writes; it may end earlier by its end-of-text token."""
    temperature: float = Field(default=0.7, ge=0)
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = Field(default=50, ge=0)
    """Samples among the k likeliest; 0 among all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Samples among the fewest tokens that hold this much probability."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the choice of prompts and of the sampling."""


class EvaluateSpec(Spec):
    """Held-out perplexity and bits per byte, beside those of a unigram and a trigram model, and samples."""

    node: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 1

    context_length: int | None = Field(default=None, ge=2)
    """Tokens that the model sees at once; None is its max_positions."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens by which the window moves, each scored once; None is half the context, so that all but a document's first
    tokens are scored with at least half a context before them."""
    batch: int = Field(default=16, ge=1)
    """Windows scored at once."""
    max_documents: int = Field(default=2000, ge=1)
    """Held-out documents scored: the first ones, in their order."""
    bootstrap_samples: int = Field(default=1000, ge=0)
    """Resamplings of documents behind the 95% confidence interval of bits per byte; 0 leaves it out."""
    max_baseline_tokens: int = Field(default=200_000_000, ge=1)
    """Training tokens that the unigram and trigram models are counted on: the first ones."""
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    """The samples."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the bootstrap."""
