"""Linear text classifiers: trained on a reference against the crawl, on labelled documents, or given as weights."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from configs.base import Spec
from configs.files import check_url

RUNS_CODE = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill")
"""Ends of names of files that run code when they are loaded; what others hold is looked at when they are read."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PinnedUrl(Spec):
    """A file of the world outside and its checksum, so that the key of what reads it knows its content."""

    url: str
    """http, https, s3 or file, or a file path."""
    sha256: Sha256
    """Of its bytes; `sha256sum FILE` prints it."""
    allowed_hosts: tuple[str, ...] = ()
    """Other hosts to which the server may redirect. Without them a redirect must stay on its host."""

    _url = field_validator("url")(check_url)


class ThresholdSpec(Spec):
    """How the threshold is chosen on the held-out documents: by exactly one of these."""

    recall: float | None = Field(default=None, gt=0, le=1)
    """The highest threshold that finds at least this share of the positive documents."""
    precision: float | None = Field(default=None, gt=0, le=1)
    """Of those whose positives are right this often, the threshold that finds most of them."""
    kept_share: float | None = Field(default=None, gt=0, le=1)
    """The threshold that this share of the documents which are not positive (the crawl's) reach. DCLM keeps 0.1 (Li et
    al. 2024, arXiv:2406.11794, section 4.4)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"a threshold is chosen by one of recall, precision, kept_share, here are {len(named)}")
        return self


class ClassifierSpec(Spec):
    """A linear classifier of words and n-grams, as fastText's (Joulin et al. 2016, arXiv:1607.01759).

    It is trained on the documents of the slot `labels`, which has a column `label`; or on those of `reference`,
    labelled `reference`, against those of `crawl`, labelled `crawl`, as DCLM's (Li et al. 2024, arXiv:2406.11794).
    With `weights` nothing is trained, and the slots, if there are any, are what it is measured on.
    """

    node: ClassVar[str] = "classifier"
    version: ClassVar[int] = 2

    positive: str = "reference"
    """The label whose probability is the score."""
    weights: PinnedUrl | None = None
    """safetensors as this node writes them, or a fastText .bin; files that run code when loaded are refused."""
    lowercase: bool = False
    """A-Z are taken as a-z. With `weights` of fastText: whether they were trained so."""
    word_ngrams: int = Field(default=2, ge=1, le=5)
    """Words in the longest n-gram."""
    min_characters: int = Field(default=0, ge=0, le=10)
    max_characters: int = Field(default=0, ge=0, le=10)
    """Characters in the shortest and longest n-gram of characters; 0 takes none. They see through respelling (fl0wer),
    and in scripts without spaces are what words are elsewhere; they take several times as long."""
    num_buckets: int = Field(default=1_000_000, ge=1, le=50_000_000)
    """Rows that n-grams share by their hash."""
    min_word_count: int = Field(default=1, ge=1)
    """Words that the sample has less often are seen only within n-grams."""
    max_words: int = Field(default=1_000_000, ge=1)
    """Most rows for words; the most frequent have them."""
    dimension: int = Field(default=16, ge=1, le=1000)
    """Of the embeddings while training. Two labels need few: 4, 16 and 100 told pages apart equally well."""
    epochs: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=0.5, gt=0)
    """Of the first step; it falls linearly to 0."""
    sample_bytes: int = Field(default=100_000_000, ge=1)
    """Text of each side to train on and hold out: whole documents, chosen by a hash of their id."""
    heldout_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the sample that is not trained on, chosen by a hash of the text: ROC curve and threshold are of these
    documents."""
    threshold: ThresholdSpec = ThresholdSpec(recall=0.9)
    seed: int = Field(default=1, ge=0)
    """Of the sample, of what is held out, of the first embeddings and of the order of training."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards of the sample that may fail for good (and are left out, counted) before the node fails."""

    @field_validator("weights")
    @classmethod
    def _weights(cls, weights: PinnedUrl | None) -> PinnedUrl | None:
        if weights is not None and weights.url.partition("?")[0].lower().endswith(RUNS_CODE):
            raise ValueError(f"{weights.url} is a pickle, which runs code: give safetensors or a fastText .bin")
        return weights

    @model_validator(mode="after")
    def _characters(self) -> Self:
        if (self.min_characters == 0) != (self.max_characters == 0) or self.min_characters > self.max_characters:
            raise ValueError(
                f"character n-grams of {self.min_characters} to {self.max_characters}: set both, the least first, or "
                "both to 0"
            )
        return self
