"""How a model writes: which token comes next, and when to end; and what the engine has for it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec

LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is all that is left in fp32."""


class DecodingSpec(Spec):
    """One request's choice of tokens. The steps are taken in the order of the fields, which is transformers'."""

    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divides the positive logits of tokens that stand in prompt or answer, and multiplies the negative ones (Keskar et
    al. 2019, arXiv:1909.05858, section 4.1); 1 leaves them."""
    temperature: float = Field(default=1.0, ge=0)
    """Divides the logits; 0 takes the likeliest token, whatever the steps below say."""
    top_k: int = Field(default=0, ge=0)
    """Keeps the k likeliest tokens, and those as likely as the last of them; 0 keeps all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keeps the fewest tokens that hold this much probability, the one that crosses it included (Holtzman et al. 2020,
    arXiv:1904.09751)."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Keeps tokens that are at least this many times as likely as the likeliest (Nguyen et al. 2024,
    arXiv:2407.01082)."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The answer is a function of it, the prompt and the model, whatever else is computed beside it."""
    max_new_tokens: int = Field(default=256, ge=1)
    """The most that is written."""
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends; they are not part of it."""

    logprobs: int | None = Field(default=None, ge=0, le=20)
    """Log-probabilities of each written token and of this many likeliest ones are kept, by the model's own distribution
    before every step above; none without. 20 is the most that OpenAI's API gives."""

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Self:
        if "" in self.stop:
            raise ValueError("stop holds an empty text, at which every answer would end: leave it out")
        return self

    @property
    def greedy(self) -> bool:
        return self.temperature < LEAST_TEMPERATURE


class EngineSpec(Spec):
    """The memory and the work of a step. What is answered does not depend on it, but for the rounding of int8."""

    block_size: int = Field(default=8, ge=1)
    """Tokens of a block of keys and values: half a block of each request lies idle, 2.5% of the memory at requests of
    150 tokens. As long as the longest request it is contiguous memory: each request holds
    one piece, used or not."""
    num_blocks: int = Field(default=2048, ge=1)
    """Of the memory for keys and values."""
    kv_dtype: Literal["model", "int8"] = "model"
    """Keys and values as the model computes them, or as int8 with a scale for each token and head."""
    max_running: int = Field(default=64, ge=1)
    """Requests that are decoded at once."""
    step_tokens: int = Field(default=512, ge=1)
    """New tokens of a step, those of prompts included; at least max_running."""
    prefix_cache: bool = True
    """Keeps the blocks of what is over, for prompts that begin alike."""
    compiled: bool | None = None
    """Decoding is compiled and replayed as CUDA graphs; by default on a GPU."""
