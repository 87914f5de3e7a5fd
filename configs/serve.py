"""How a model is served: which one, with what memory, to whom and how much at once."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Spec
from configs.inference import DecodingSpec, EngineSpec


class LimitsSpec(Spec):
    """What one client can ask for, and all of them at once."""

    max_queued: int = Field(default=256, ge=0)
    """Answers that wait while engine.max_running are written; what comes beyond is refused with status 429."""
    max_answers: int = Field(default=64, ge=1)
    """Answers to one request: its prompts times n."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The most that is written of one answer; None is what the context leaves."""
    max_body_bytes: int = Field(default=4 << 20, ge=1 << 10)
    """Of a request."""


class ReplicasSpec(Spec):
    """Engines on Ray Serve, each with the model on CPUs or GPUs of its own."""

    min_replicas: int = Field(default=1, ge=0)
    """That stand without any request; with 0 the first one waits until the model is loaded."""
    max_replicas: int = Field(default=1, ge=1)
    """As many as there may be."""
    target_ongoing: int = Field(default=32, ge=1)
    """Requests in flight a replica, on the average, above which another one is started."""
    cpus: float = Field(default=1, ge=0)
    """Of a replica."""
    gpus: float | None = Field(default=None, ge=0)
    """Of a replica; None is one where the cluster has GPUs and device is not cpu."""

    @model_validator(mode="after")
    def _least_is_not_more(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is more than max_replicas ({self.max_replicas})")
        return self


class ServeSpec(Spec):
    """One served model."""

    model: str = Field(min_length=1)
    """As `ray_jobs.inference.loading.load` takes it: a run, a node, a folder, a .gguf file or OWNER/NAME of the hub."""
    store: str | None = None
    """Where runs and nodes are looked up."""
    name: str | None = None
    """What clients call the model; None takes it from where the model is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU where there is one."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto is bf16 where the device computes with it, else fp32."""
    engine: EngineSpec = EngineSpec()
    """num_blocks counts only where kv_gb is None."""
    kv_gb: float | None = Field(default=None, gt=0)
    """Memory for keys and values in GiB. None takes engine.num_blocks on a CPU, and on a GPU 80% of what the model
    leaves free."""
    limits: LimitsSpec = LimitsSpec()
    replicas: ReplicasSpec = ReplicasSpec()
    host: str = "127.0.0.1"
    """Address to listen on: this machine only, unless another is given."""
    port: int = Field(default=8000, ge=1, lt=2**16)
    api_keys_file: str | None = None
    """A line a key; without it the keys in HEADRACE_API_KEYS, and without those nobody is asked for one."""


class ChatSpec(Spec):
    """A conversation in a terminal."""

    model: str = Field(min_length=1)
    """As `ServeSpec.model`."""
    store: str | None = None
    """Where runs and nodes are looked up."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """As `ServeSpec.device`."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """As `ServeSpec.dtype`."""
    system: str | None = None
    """What the model is told before the conversation; None leaves it to the model's form."""
    decoding: DecodingSpec = DecodingSpec(max_new_tokens=1024)
    """Its seed counts up with the turns."""
    max_context: int = Field(default=16_384, ge=2)
    """Tokens of conversation and answer that memory is taken for, where the model's context is longer."""
