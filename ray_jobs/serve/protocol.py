"""The requests of OpenAI's API, as far as they are understood here.

Fields that change an answer and are not known are refused, so that nobody takes one for what it is not; those that only
label a request are taken and left alone. `top_k`, `min_p` and `repetition_penalty` are additions, as vLLM's are.
"""

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from configs.inference import DecodingSpec

MOST_LOGPROBS = 20
MOST_STOPS = 16
Text = Annotated[str, StringConstraints(min_length=1)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]


class Decoding(BaseModel):
    """What requests for texts and for conversations share."""

    model_config = ConfigDict(extra="forbid")

    model: str
    n: int = Field(default=1, ge=1)
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """0 and −1 keep all tokens."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: Any = None
    metadata: Any = None

    @field_validator("presence_penalty", "frequency_penalty", "logit_bias")
    @classmethod
    def _has_no_effect(cls, value: Any) -> Any:
        if value:
            raise ValueError("it is not supported: leave it out, or give repetition_penalty")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def spec(self, max_new_tokens: int, logprobs: int | None) -> DecodingSpec:
        """Without a seed of the request, one that nobody knows."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
        }
        return DecodingSpec(
            **{name: value for name, value in given.items() if value is not None},
            # Several answers count up from it.
            seed=min(self.seed if self.seed is not None else secrets.randbits(62), 2**63 - 1 - self.n),
            max_new_tokens=max_new_tokens,
            stop=self.stops,
            logprobs=logprobs,
        )


class CompletionRequest(Decoding):
    """POST /v1/completions."""

    prompt: list[str] | list[list[int]]
    """Given as a text, as token ids, or as a list of one of these."""
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    best_of: Literal[1] | None = None
    suffix: None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _as_a_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and value:
            if all(isinstance(one, str) for one in value):
                return value
            if _are_tokens(value):
                return [value]
            if all(isinstance(one, list) and _are_tokens(one) for one in value):
                return value
        raise ValueError("give a text, a list of token ids, or a list of texts or of such lists")


def _are_tokens(value: list[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in value)


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(min_length=1)]
    name: str | None = None

    def for_template(self) -> dict[str, Any]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        # OpenAI's newer name of the same role; no template knows it.
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatRequest(Decoding):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: Any = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
