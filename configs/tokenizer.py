"""The tokenizer."""

from typing import ClassVar, Literal

from pydantic import Field

from configs.base import Spec


class TokenizerSpec(Spec):
    """Byte-level BPE trained on a sample of the documents."""

    node: ClassVar[str] = "tokenizer"
    version: ClassVar[int] = 2

    vocab_size: int = Field(default=32_000, ge=260, le=1_000_000)
    """Tokens in all: 4 special ones, 256 bytes, and merges. A small sample may fill fewer (see min_frequency)."""
    pre_tokenizer: Literal["gpt2", "llama3"] = "gpt2"
    """How text is cut before merging: GPT-2's pattern, or Llama 3's (digits in groups of up to three)."""
    min_frequency: int = Field(default=2, ge=1)
    """A pair is merged only if the sample has it this often."""
    sample_bytes: int = Field(default=200_000_000, ge=1)
    """Size of the sample to aim at: whole documents, chosen by a hash of their id."""
    seed: int = Field(default=1, ge=0)
    """Of the sample."""
