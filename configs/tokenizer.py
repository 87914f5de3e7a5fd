"""The tokenizer."""

from typing import ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from configs.base import Spec
from configs.classifier import PinnedUrl

Kind: TypeAlias = Literal["bpe-gpt2", "bpe-llama3", "sentencepiece-bpe", "sentencepiece-unigram"]


class OtherTokenizer(Spec):
    """A tokenizer of others, to be measured beside the trained one: its tokenizer.json, or GPT-2's two files.

    compared_with:
      gpt2:
        vocabulary: {url: https://…/encoder.json, sha256: …}
        merges: {url: https://…/vocab.bpe, sha256: …}
    """

    tokenizer: PinnedUrl | None = None
    """A tokenizer.json."""
    vocabulary: PinnedUrl | None = None
    """encoder.json or vocab.json, of a byte-level BPE that cuts text as GPT-2 does."""
    merges: PinnedUrl | None = None
    """Its vocab.bpe or merges.txt."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given not in ({"tokenizer"}, {"vocabulary", "merges"}):
            raise ValueError("another tokenizer is named by `tokenizer`, or by both `vocabulary` and `merges`")
        return self


class TokenizerSpec(Spec):
    """A tokenizer trained on a sample of the documents: byte-level BPE, or one of SentencePiece's as LLaMA has them."""

    node: ClassVar[str] = "tokenizer"
    version: ClassVar[int] = 5

    model: Literal["bpe", "sentencepiece-bpe", "sentencepiece-unigram"] = "bpe"
    """`bpe`: byte-level, after a pre-tokenizer. The others: on characters, with blanks as pieces, single digits and
    bytes for characters without a piece; every text but U+2581 comes back from them."""
    vocab_size: int = Field(default=32_000, ge=260, le=1_000_000)
    """Tokens in all: special ones, 256 bytes, and what is learned. A small sample may fill fewer."""
    pre_tokenizer: Literal["gpt2", "llama3"] = "gpt2"
    """How text is cut before merging: GPT-2's pattern, or Llama 3's (digits in groups of up to three). SentencePiece's
    models always cut at blanks and around digits."""
    min_frequency: int = Field(default=2, ge=1)
    """A pair is merged only if the sample has it this often. Of model bpe."""
    chat_template: Literal["chatml", "llama2"] = "chatml"
    """How a dialogue becomes text: with a header and an end for each turn, or as Llama 2's."""
    sample_bytes: int = Field(default=200_000_000, ge=1)
    """Size of the sample to aim at: whole documents, chosen by a hash of the text, so that no text is both
    in the sample and held out, whatever copies of it there are."""
    language_alpha: float = Field(default=1.0, ge=0, le=1)
    """How languages share the sample: each by its share of the text to this power (Conneau and Lample 2019,
    arXiv:1901.07291, section 3.1). 1 leaves them as they are, 0 gives all the same; XLM-R's vocabulary has 0.3. What a
    language is short of goes to the others, and no document is taken twice."""
    heldout_bytes: int = Field(default=200_000, ge=0)
    """Text of each language that is kept out of the sample, to measure on: at most a twentieth of it."""
    kinds_beside: tuple[Kind, ...] = ()
    """Other kinds that are trained on the same sample to the same size, in parallel, only to be measured on the same
    text: bpe-gpt2, bpe-llama3, sentencepiece-bpe, sentencepiece-unigram."""
    compared_with: dict[str, OtherTokenizer] = Field(default_factory=dict)
    """Tokenizers of others by a name of your own, measured on the same text."""
    seed: int = Field(default=1, ge=0)
    """Of the sample."""

    @property
    def kind(self) -> Kind:
        """Of the tokenizer that the node leaves."""
        if self.model != "bpe":
            return self.model
        return "bpe-gpt2" if self.pre_tokenizer == "gpt2" else "bpe-llama3"

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = [self.kind, *self.kinds_beside, *self.compared_with]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} would stand twice in the report: kinds_beside names kinds other than the trained "
                f"one ({self.kind}), each once, and compared_with gives others names of their own"
            )
        return self

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.model != "bpe":
            for name in ("pre_tokenizer", "min_frequency"):
                value, default = getattr(self, name), type(self).model_fields[name].default
                if value != default:
                    raise ValueError(
                        f"{name} ({value}) is of model bpe, and {self.model} has none: leave it out, or set model to "
                        "bpe"
                    )
        return self
