"""A model is found by what its owner calls it, and what is not one is told of."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.inference import DecodingSpec
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.runs import Run, RunNode, write_run
from ray_jobs.checkpoint.store import Store
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import dtype_of, end_tokens, load, node_of
from tests.serve.tiny import write_model

KEYS = {"pretrain": "a" * 64, "pretrain-2": "b" * 64, "sft": "c" * 64, "tokens": "d" * 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def put_node(store: Store, kind: str, key: str, folder: Path | None = None) -> None:
    """A finished node with the folder's files as its model."""
    import hashlib

    from ray_jobs.checkpoint.manifest import Manifest

    path = NodePath(kind, key)
    outputs = []
    for file in sorted(folder.iterdir()) if folder else []:
        data, place = file.read_bytes(), f"{path.root}/data/{file.name}"
        store.put(place, data)
        digest = hashlib.sha256(data).hexdigest()
        outputs.append(
            {"stage": "model", "shard": 0, "name": file.name, "path": place, "bytes": len(data), "sha256": digest}
        )
    values: dict[str, Any] = _manifest_values(kind, key, outputs)
    store.create(path.manifest, Manifest.model_validate(values).to_json())


def put_run(store: Store, run_id: str, states: dict[str, str]) -> None:
    nodes = {
        name: RunNode(node=name.removesuffix("-2"), key=KEYS[name], payload={}, state=state)
        for name, state in states.items()
    }
    write_run(store, Run(id=run_id, recipe="demo", started=0, seconds=0, state="COMPLETED", nodes=nodes))
