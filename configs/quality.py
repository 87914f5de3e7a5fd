"""How like a reference a document is, and how abusive: n-gram language models, and scores by them and by others."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec
from configs.toxicity import ToxicWords

Tokens = Literal["ccnet", "ccnet-words"]
Threshold = Annotated[float, Field(ge=0, le=1)] | Literal["chosen"]
"""A probability, or what the classifier's node chose on its held-out documents."""
Bucket = Literal["head", "middle", "tail"]
MAX_ORDER = 6


class NgramLmSpec(Spec):
    """N-gram language models of the documents, one a language, with interpolated modified Kneser-Ney smoothing."""

    node: ClassVar[str] = "ngram-lm"
    version: ClassVar[int] = 3

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    """Languages to train a model of, each on the documents in it."""
    order: int = Field(default=3, ge=2, le=MAX_ORDER)
    """Words in the longest n-gram. CCNet's 5 count pieces of words, of which 3 words have about as many. Trained on
    2.6 MB of documentation, five words rank 400 pages as three do (rank correlation .998) with a model three times as
    large; on Wikipedia's text they lower perplexity by 2 %."""
    min_count: tuple[int, ...] = Field(default=(1, 1, 2), min_length=1)
    """An n-gram that comes less often is left out of the model, for words (always 1), pairs and so on; the last number
    holds for all longer ones too. What is left out still counts towards the discounts. (1, 1, 2) is lmplz's
    `--prune 0 0 1`: it spares 60 % of the triples of that documentation, 87 % of Wikipedia's, where perplexity rises by
    0.3 %."""
    tokens: Tokens = "ccnet"
    """Both lower-case, strip accents and make every digit 0 (Wenzek et al. 2020). Punctuation marks are words of their
    own, or with `ccnet-words` nothing but spaces."""
    sample_bytes: int = Field(default=2_000_000_000, ge=1)
    """Text to train on, all languages together: whole documents, chosen by a hash of the text. The n-grams of one
    language's sample are held in memory while its model is made, about 200 bytes for each that is distinct."""
    heldout_share: float = Field(default=0.02, ge=0, lt=1)
    """Share of the sample's documents that the models are not trained on, to measure their perplexity."""
    seed: int = Field(default=1, ge=0)
    """Of the sample and of the held-out documents."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""

    @model_validator(mode="after")
    def _counts_rise(self) -> Self:
        if self.min_count[0] != 1 or list(self.min_count) != sorted(self.min_count):
            raise ValueError("min_count must begin with 1 and never fall, such as [1, 1, 2]")
        if len(self.min_count) > self.order and "min_count" in self.model_fields_set:
            raise ValueError(f"min_count has {len(self.min_count)} numbers and order is {self.order}: leave some out")
        return self

    def least_count(self, order: int) -> int:
        """Of an n-gram of so many words."""
        return self.min_count[min(order, len(self.min_count)) - 1]


class Limits(Spec):
    """Perplexities up to which a document is in head, and in middle; beyond them it is in tail."""

    head: float = Field(gt=0)
    middle: float = Field(gt=0)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.head > self.middle:
            raise ValueError(f"head is {self.head} and middle {self.middle}: middle must not be the lower")
        return self


class QualitySpec(Spec):
    """Documents scored by perplexity under a language model, by classifiers and by word lists, and kept or dropped.

    Documents in a language without a model have no perplexity and no bucket, and these drop none of them. By default
    everything is measured and nothing is dropped: scores stand in the audit for whoever reads on.
    """

    node: ClassVar[str] = "quality"
    version: ClassVar[int] = 2

    head_percentile: float = Field(default=30.0, ge=0, le=100)
    """Share of a language's documents, those of lowest perplexity, in the bucket head (CCNet: 30)."""
    middle_percentile: float = Field(default=60.0, ge=0, le=100)
    """Share in head and middle together (CCNet: 60); the rest is tail."""
    limits: dict[str, Limits] = Field(default_factory=dict)
    """Language -> perplexities that bound its buckets, in place of the percentiles of this corpus."""
    keep: tuple[Bucket, ...] = ("head", "middle", "tail")
    """Buckets whose documents are kept. By default all: the bucket then stands in the audit for whoever reads on."""
    scorer: Literal["headrace", "kenlm"] = "headrace"
    """What reads the model: the compiled reader, or KenLM, which must be installed. They agree to 1e-4 in log10 a line,
    not to the last bit, so that the choice is part of what is computed."""
    quality_threshold: Threshold | None = None
    """Documents are dropped to which the slot `classifier` gives a lower probability of being like the reference."""
    quality_top_share: float | None = Field(default=None, gt=0, le=1)
    """Instead: the share of this corpus's documents, those of the highest probability, that is kept. DCLM keeps 0.1 (Li
    et al. 2024, arXiv:2406.11794, section 4.4)."""
    toxicity_threshold: Threshold | None = None
    """Documents are dropped to which the slot `toxicity` gives at least this probability of being abusive."""
    toxic_words: ToxicWords | None = ToxicWords()
    """Null looks for no words."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""

    @model_validator(mode="after")
    def _one_quality(self) -> Self:
        if self.quality_threshold is not None and self.quality_top_share is not None:
            raise ValueError("quality_threshold and quality_top_share are two ways to say the same: set one of them")
        return self

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Self:
        if self.head_percentile > self.middle_percentile:
            raise ValueError(f"head_percentile must be at most middle_percentile, which is {self.middle_percentile}")
        return self
