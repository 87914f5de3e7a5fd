"""A store with tokenizer and tokens nodes, and a process group of one rank."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.pretrain.launch import TrainingJob
from tests.pretrain.corpus import publish_tokenizer, publish_tokens
from tests.pretrain.ranks import job_of

SPEC: dict[str, Any] = {
    "model": {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "max_positions": 32},
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 3},
    "steps": 12,
    "global_batch": 8,
    "sequence_length": 32,
    "checkpoint_every": 4,
    "log_every": 3,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def inputs(store: Store) -> dict[str, Checkpoint]:
    tokenizer = publish_tokenizer(store)
    return {"tokenizer": tokenizer, "tokens": publish_tokens(store, tokenizer)}


@pytest.fixture
def training(store: Store, inputs: dict[str, Checkpoint]) -> Callable[..., dict[str, Any]]:
    """`training(name, spec changes)` gives the arguments of `job_of`."""

    def of(name: str, changes: dict[str, Any] | None = None, **resources: Any) -> dict[str, Any]:
        keys = {slot: upstream.key for slot, upstream in inputs.items()}
        spec = {**SPEC, **(changes or {})}
        return {"store_url": store.url, "inputs": keys, "spec": spec, "name": name, **resources}

    return of


@pytest.fixture
def job(training: Callable[..., dict[str, Any]]) -> Callable[..., TrainingJob]:
    return lambda *arguments, **resources: job_of(**training(*arguments, **resources))


@pytest.fixture
def one_rank() -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
