"""Untrained models in a store, beside tokens and tokenizer."""

from typing import Any

import torch

from configs.model import ModelSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.files import Vocabulary, model_files, tokenizer_files
from tests.pretrain.corpus import VOCABULARY, publish, publish_tokenizer, publish_tokens

TRAINING_LENGTH = 64
SHAPES: dict[str, dict[str, Any]] = {
    "rope": {"intermediate": 48},
    "qwen": {"architecture": "qwen3", "intermediate": 48},
    "alibi": {"architecture": "mpt", "intermediate": 128},
}


def model_of(name: str, init_std: float = 0.15, **changes: Any) -> Any:
    """Untrained; 0 as the deviation gives every token the same probability."""
    shape = {"hidden": 32, "layers": 2, "heads": 2, "max_positions": TRAINING_LENGTH, **SHAPES[name], **changes}
    model = empty_model(transformers_config(ModelSpec(**shape), VOCABULARY))
    materialise(model, torch.device("cpu"))
    initialise(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(init_std / model.config.initializer_range)
    return model.eval()


def publish_model(
    store: Store, tokenizer: Checkpoint, name: str, init_std: float = 0.15, salt: str = "", **changes: Any
) -> Checkpoint:
    shape = {"hidden": 32, "layers": 2, "heads": 2, "max_positions": TRAINING_LENGTH, **SHAPES[name], **changes}
    model = model_of(name, init_std, **changes)
    weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    files = model_files(ModelSpec(**shape), Vocabulary(VOCABULARY, 0, 0, None), weights, "fp32")
    written = {key: file.data for key, file in {**files, **tokenizer_files(tokenizer)}.items()}
    return publish(store, "pretrain", {"model": written}, inputs={"tokenizer": tokenizer}, salt=f"{name}{salt}")


def publish_inputs(store: Store) -> dict[str, Checkpoint]:
    tokenizer = publish_tokenizer(store)
    return {
        "tokenizer": tokenizer,
        "tokens": publish_tokens(store, tokenizer),
        "model.rope": publish_model(store, tokenizer, "rope"),
        "model.alibi": publish_model(store, tokenizer, "alibi"),
    }
