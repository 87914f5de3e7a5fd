"""A model is found by what its owner calls it, and what is not one is told of."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.inference import DecodingSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.runs import Run, RunNode, write_run
from ray_jobs.checkpoint.store import Store
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import dtype_of, load, node_of
from tests.pretrain.corpus import publish
from tests.serve.tiny import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def publish_model(store: Store, kind: str, folder: Path, salt: str = "") -> Checkpoint:
    return publish(store, kind, {"model": {file.name: file.read_bytes() for file in folder.iterdir()}}, salt=salt)


def put_run(store: Store, run_id: str, nodes: dict[str, tuple[Checkpoint, str]]) -> None:
    """nodes: by their names in the run, what they left and their states."""
    found = {
        name: RunNode(node=checkpoint.node, key=checkpoint.key, payload={}, state=state)
        for name, (checkpoint, state) in nodes.items()
    }
    write_run(store, Run(id=run_id, recipe="demo", started=0, seconds=0, state="COMPLETED", nodes=found))


def test_a_runs_model_is_that_of_its_last_training(file_store: Store, folder: Path) -> None:
    first, second = (publish_model(file_store, "pretrain", folder, salt) for salt in ("1", "2"))
    sft = publish_model(file_store, "sft", folder)
    tokens = publish(file_store, "tokens", {"train": {}})
    base = {"pretrain": (first, "HIT"), "pretrain-2": (second, "DONE"), "tokens": (tokens, "DONE")}
    put_run(file_store, "20260101-000000-demo-aaaa", base)
    put_run(file_store, "20260102-000000-demo-bbbb", {"sft": (sft, "DONE"), **base})
    put_run(file_store, "20260103-000000-demo-cccc", {"sft": (sft, "FAILED"), **base})
    assert node_of(file_store, "20260101").key == second.key
    assert node_of(file_store, "20260102").key == sft.key
    assert node_of(file_store, "last").key == second.key
    assert node_of(file_store, "last:pretrain").key == first.key
    assert node_of(file_store, f"sft@{sft.key[:16]}").key == sft.key
    with pytest.raises(ValueError, match="no finished model called sft: it has pretrain, pretrain-2"):
        node_of(file_store, "last:sft")
    with pytest.raises(FileNotFoundError, match="holds no finished pretrain"):
        node_of(file_store, "pretrain@0123456789abcdef")
    put_run(file_store, "20260104-000000-demo-dddd", {"tokens": (tokens, "DONE")})
    with pytest.raises(ValueError, match="has no finished model"):
        node_of(file_store, "last")


def test_a_nodes_model_writes_as_the_folders_and_its_texts_begin_as_in_training(
    file_store: Store, folder: Path
) -> None:
    put_run(
        file_store, "20260101-000000-demo-aaaa", {"pretrain": (publish_model(file_store, "pretrain", folder), "DONE")}
    )
    node = load("last", file_store, device="cpu", dtype="fp32")
    plain = load(str(folder), device="cpu", dtype="fp32")
    end_of_text = plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert node.encode("the mill") == [end_of_text, *plain.encode("the mill")]
    answers = []
    for loaded in (node, plain):
        engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
        (request,) = engine.add(plain.encode("the mill"), DecodingSpec(temperature=0, max_new_tokens=10))
        engine.run()
        answers.append(request.answer)
    assert answers[0] == answers[1]
    assert node.is_base and not plain.is_base
    with pytest.raises(ValueError, match="base model"):
        node.encode_chat([{"role": "user", "content": "hello"}])


def test_answers_end_at_the_end_of_a_text_and_of_a_turn(folder: Path, tmp_path: Path) -> None:
    plain = load(str(folder), device="cpu", dtype="fp32")
    assert set(plain.tokenizer.convert_ids_to_tokens(list(plain.end_tokens))) == {"<|endoftext|>", "<|im_end|>"}
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    defaults = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**defaults, "eos_token_id": [0, 17]}))
    assert 17 in load(str(tmp_path), device="cpu", dtype="fp32").end_tokens


def test_the_number_of_tokens_leaves_out_the_embeddings_padding(folder: Path) -> None:
    loaded = load(str(folder), device="cpu", dtype="fp32")
    num_tokens = len(loaded.tokenizer)
    loaded.model.resize_token_embeddings(num_tokens + 44)
    assert loaded.num_tokens == num_tokens


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./nothing", "there is no folder"),
        ("/nothing/model.gguf", "there is no file"),
        ("nothing", "0 runs called 'nothing'"),
    ],
)
def test_what_is_no_model_is_told_of(file_store: Store, source: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(source, file_store)


def test_a_folder_without_a_model_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name a folder with config\.json"):
        load(str(tmp_path))


def test_the_dtype_is_the_devices_own_choice_or_the_callers() -> None:
    cpu = torch.device("cpu")
    wanted: dict[Any, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: dtype_of(name, cpu) for name in wanted} == wanted
    flags = Path("/proc/cpuinfo").read_text()
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    assert dtype_of("auto", cpu) == (torch.bfloat16 if fast else torch.float32)
