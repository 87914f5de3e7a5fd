"""What `headrace analyse` measures."""

from typing import Literal

from pydantic import Field

from configs.base import Spec

PROMPT = "The history of the printing press begins"


class AnalyseSpec(Spec):
    """One model, and what it is put to."""

    model: str
    """As for `headrace serve`."""
    store: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    prompt: str = PROMPT
    """Gone on with by `decoding`; said by the user in `prompts`."""
    new_tokens: int = Field(default=64, ge=1)
    """Written by each way of `decoding`."""
    lengths: tuple[int, ...] = Field(default=(32, 64, 128), min_length=1)
    """New tokens for which `kv` compares kinds of cache."""
    batches: tuple[int, ...] = Field(default=(1, 4, 16, 64), min_length=1)
    """Requests for which `kv` compares contiguous with paged memory."""
    seed: int = Field(default=0, ge=0)
    json_output: bool = False
