"""The architecture of a model that is trained here."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec


class RopeScaling(Spec):
    """Rotary frequencies of a context longer than they were made for."""

    method: Literal["linear", "ntk", "dynamic", "yarn", "llama3"]
    """linear: position interpolation, all frequencies divided by `factor`. ntk: a larger base, static. dynamic: the
    base grows with the text beyond max_positions. yarn: high frequencies stay, low ones are interpolated, and attention
    is sharpened. llama3: the same idea in Llama 3's cut."""
    factor: float = Field(gt=1)
    """How many times longer the context is."""
    original_positions: int | None = Field(default=None, ge=2)
    """Of yarn and llama3: the context that the unscaled frequencies are for; needed."""
    beta_fast: float = Field(default=32.0, gt=0)
    """Of yarn: frequencies with more turns than this in the original context stay (Peng et al. 2023, section 3.2)."""
    beta_slow: float = Field(default=1.0, gt=0)
    """Of yarn: those with fewer are interpolated in full."""
    attention_factor: float | None = Field(default=None, gt=0)
    """Of yarn: multiplies cos and sin; None is 0.1·ln(factor) + 1."""
    low_freq_factor: float = Field(default=1.0, gt=0)
    """Of llama3: as beta_slow."""
    high_freq_factor: float = Field(default=4.0, gt=0)
    """Of llama3: as beta_fast."""

    @model_validator(mode="after")
    def _fields_are_of_the_method(self) -> Self:
        of_method = {
            "yarn": {"original_positions", "beta_fast", "beta_slow", "attention_factor"},
            "llama3": {"original_positions", "low_freq_factor", "high_freq_factor"},
        }.get(self.method, set())
        others = set(type(self).model_fields) - {"method", "factor"} - of_method
        wrong = sorted(name for name in others if getattr(self, name) != type(self).model_fields[name].default)
        if wrong:
            raise ValueError(f"rope_scaling {self.method} has no {', '.join(wrong)}: leave it out")
        if "original_positions" in of_method and self.original_positions is None:
            raise ValueError(f"rope_scaling {self.method} needs original_positions, the context before scaling")
        if self.beta_fast <= self.beta_slow or self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("rope_scaling: beta_fast must be above beta_slow, high_freq_factor above low_freq_factor")
        return self


class ModelSpec(Spec):
    """A decoder of transformers' own Llama family, or MPT. The vocabulary's size comes from the tokenizer.

    The defaults are the demo's model: 1.12 million parameters with a vocabulary of 2,048.
    """

    architecture: Literal["llama", "qwen3", "mpt"] = "llama"
    """`llama` (LlamaForCausalLM); `qwen3` (Qwen3ForCausalLM: the same, with RMSNorm on queries and keys); or `mpt`
    (MptForCausalLM: ALiBi instead of rotary positions, LayerNorm, an MLP with GELU and no gate; it holds whole matrices
    of attention scores, so is for comparisons and not for long sequences)."""
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
    """Width of the MLP, which has a gate but in MPT; there it is 4 times `hidden`."""
    max_positions: int = Field(default=128, ge=2)
    """The longest context the model is meant for; training sequences may be shorter."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """None leaves them as they are."""
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in every RMSNorm; in MPT to the variance in every LayerNorm."""
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
        if self.architecture == "mpt":
            self._fits_mpt()
        if self.rope_scaling is not None and self.rope_scaling.method == "ntk" and self.head_width == 2:
            raise ValueError("rope_scaling ntk has no effect on heads of width 2: choose fewer heads")
        scaling = self.rope_scaling
        if scaling is not None and scaling.original_positions and scaling.original_positions > self.max_positions:
            raise ValueError(
                f"rope_scaling.original_positions ({scaling.original_positions}), the context before scaling, is more "
                f"than max_positions ({self.max_positions}), the one after: raise max_positions"
            )
        if self.head_width % 2 and self.architecture != "mpt":
            raise ValueError(f"head_dim ({self.head_width}) must be even, RoPE turns pairs: change hidden or heads")
        return self

    def _fits_mpt(self) -> None:
        """MPT's class has no other shapes, so a model of these could not be exported."""
        if self.num_kv_heads != self.heads or self.head_width * self.heads != self.hidden:
            raise ValueError(
                "mpt has as many key and value heads as heads, of hidden / heads: leave out kv_heads and head_dim"
            )
        if self.intermediate != 4 * self.hidden:  # transformers' class reads no other
            raise ValueError(f"mpt's intermediate is 4 times hidden: set it to {4 * self.hidden}")
        rotary = [
            name
            for name in ("rope_theta", "rope_scaling")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if rotary:
            raise ValueError(f"mpt has ALiBi and no rotary positions: leave out {', '.join(rotary)}")
