"""The architecture of a model that is trained here."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec


class ModelSpec(Spec):
    """A decoder of transformers' own Llama family. The vocabulary's size comes from the tokenizer.

    The defaults are the demo's model: 1.12 million parameters with a vocabulary of 2,048.
    """

    architecture: Literal["llama", "qwen3"] = "llama"
    """`llama` (LlamaForCausalLM) or `qwen3` (Qwen3ForCausalLM: the same, with RMSNorm on queries and keys)."""
    hidden: int = Field(default=128, ge=2)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Decoder layers."""
    heads: int = Field(default=4, ge=1)
    """Query heads."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Key and value heads, each shared by heads / kv_heads query heads; None is as many as `heads`."""
    head_dim: int | None = Field(default=None, ge=2)
    """Width of one head; None is hidden / heads."""
    intermediate: int = Field(default=384, ge=1)
    """Width of the gated MLP."""
    max_positions: int = Field(default=128, ge=2)
    """The longest context the model is meant for; training sequences may be shorter."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in every RMSNorm."""
    tied_embeddings: bool = True
    """One matrix as input embedding and as output head."""
    vocabulary_multiple: int = Field(default=1, ge=1)
    """The vocabulary is padded up to a multiple of this (64 or 128 suits a GPU); padding is never a target."""
    init_std: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of initial weights; projections into the residual stream take it over sqrt(2·layers)."""

    @property
    def num_kv_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.hidden // self.heads

    def padded_vocabulary(self, size: int) -> int:
        """Rows of the embedding for a tokenizer of `size` tokens."""
        return -(-size // self.vocabulary_multiple) * self.vocabulary_multiple

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.heads % self.num_kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.num_kv_heads})")
        if self.head_width % 2:
            raise ValueError(f"head_dim ({self.head_width}) must be even, RoPE turns pairs: change hidden or heads")
        return self
