"""The checkpoints of a study whose losses follow a known law, with noise."""

import json
import math

import numpy as np

from configs.scaling import ScalingLaw
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import Store
from tests.report.synthetic import finish

TRUE = ScalingLaw(E=1.7, A=60.0, B=90.0, alpha=0.35, beta=0.33)
FACTOR = 7.0
BUDGETS = (1e13, 4e13, 1.6e14)
SHIFTS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sizes of a budget, as shares of its best one."""
UNIGRAM = math.exp(6.5)


def grid(store: Store, noise: float = 0.001, law: ScalingLaw = TRUE) -> dict[str, Checkpoint]:
    """Slot -> checkpoint, as a scaling node has them."""
    random = np.random.default_rng(5)
    tokenizer = finish(store, "tokenizer", {}, spec={"vocab_size": 512})
    tokens = finish(store, "tokens", {}, {"tokenizer": tokenizer})
    inputs = {}
    for row, budget in enumerate(BUDGETS):
        for column, shift in enumerate(SHIFTS):
            parameters = round(law.optimum(budget, FACTOR)[0] * shift)
            num_tokens = round(budget / FACTOR / parameters)
            loss = law.loss(parameters, num_tokens) * math.exp(random.normal(0, noise))
            name = f"s{column}-b{row}"
            model = training(store, parameters, num_tokens, {"tokens": tokens, "tokenizer": tokenizer})
            inputs[f"model.{name}"] = model
            inputs[f"evaluation.{name}"] = evaluation(store, loss, model, tokens, tokenizer)
    return inputs


def training(store: Store, parameters: int, tokens: int, inputs: dict[str, Checkpoint]) -> Checkpoint:
    metrics = {
        "parameters": parameters,
        "train_tokens": tokens,
        "train_flops": FACTOR * parameters * tokens,
        "loss": 3.0,
        "epochs": 0.5,
    }
    spec = {"steps": 100, "optimizer": {"learning_rate": 1e-3}, "of": parameters, "on": tokens}
    curve = {"metrics.jsonl": File(b'{"step": 1, "loss": 3.0}\n')}
    return finish(store, "pretrain", {"model": [ShardOutput(curve, {})]}, inputs, metrics, spec=spec)


def evaluation(
    store: Store,
    loss: float,
    model: Checkpoint,
    tokens: Checkpoint,
    tokenizer: Checkpoint,
    stride: int = 64,
) -> Checkpoint:
    results = {
        "model": {"perplexity": math.exp(loss), "bits_per_byte": 2.0},
        "unigram": {"perplexity": UNIGRAM, "bits_per_byte": 4.0},
        "context_length": 128,
        "stride": stride,
        "documents": 40,
    }
    inputs = {"model": model, "tokens": tokens, "tokenizer": tokenizer}
    shard = ShardOutput({"results.json": File(json.dumps(results).encode())}, {})
    spec = {"stride": stride, "of": loss}
    return finish(store, "evaluate", {"results": [shard]}, inputs, {"bits_per_byte": 2.0}, spec=spec)
