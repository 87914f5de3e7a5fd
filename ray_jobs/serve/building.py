"""From a spec to a service: the model is loaded, its memory measured out, the engine set up."""

import logging
from typing import TYPE_CHECKING, Any

from configs.inference import EngineSpec
from configs.serve import ServeSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.inference.loading import Loaded, load
from ray_jobs.serve.metrics import Metrics
from ray_jobs.serve.service import Service

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("headrace")

GPU_SHARE = 0.8
"""Of what the model leaves free; the rest is for what a step computes."""


def make_service(spec: ServeSpec) -> tuple[Service, Metrics]:
    """Raises ValueError where the model cannot be loaded or served."""
    loaded = load(spec.model, None if spec.store is None else open_store(spec.store), spec.device, spec.dtype)
    return service_of(loaded, spec)


def service_of(loaded: Loaded, spec: ServeSpec) -> tuple[Service, Metrics]:
    """Of a model that is loaded."""
    from ray_jobs.inference.engine import Engine
    from ray_jobs.serve.loop import EngineLoop

    engine_spec = spec.engine.model_copy(update={"num_blocks": num_blocks(loaded.model, spec.engine, spec.kv_gb)})
    tokenizer: Any = loaded.tokenizer

    def decode(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens, decode, engine_spec)
    metrics = Metrics()
    service = Service(loaded, EngineLoop(engine, decode, spec.limits.max_queued, metrics), spec.limits, spec.name)
    log.info(
        "%s on %s in %s: context %d, keys and values of %d tokens%s",
        service.name,
        loaded.model.device,
        str(loaded.model.dtype).removeprefix("torch."),
        loaded.context,
        engine_spec.num_blocks * engine_spec.block_size,
        "; a base model, which completes texts" if loaded.is_base else "",
    )
    return service, metrics


def num_blocks(model: "PreTrainedModel", spec: EngineSpec, kv_gb: float | None) -> int:
    """Blocks that the memory for keys and values has room for, which is given in GiB.

    Raises:
        ValueError: it has none, or the model has no such keys and values.
    """
    import torch

    from ray_jobs.inference.memory import Memory

    if not hasattr(model.config, "num_key_value_heads"):
        raise ValueError(f"{type(model).__name__} has no key-value heads, which the engine keeps: serve another model")
    if kv_gb is not None:
        num_bytes = int(kv_gb * 2**30)
    elif model.device.type == "cuda":
        num_bytes = int(torch.cuda.mem_get_info(model.device)[0] * GPU_SHARE)
    else:
        return spec.num_blocks
    found = num_bytes // (spec.block_size * Memory(model, 1, spec.block_size, spec.kv_dtype).bytes_per_token)
    if found < 2:
        raise ValueError(f"{num_bytes / 2**30:.2f} GiB hold no two blocks of keys and values: raise kv_gb")
    return found
