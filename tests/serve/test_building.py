"""A spec becomes the engine, or the other server, that it says."""

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from transformers import MptConfig, MptForCausalLM

from configs.inference import EngineSpec
from configs.serve import ServeSpec
from ray_jobs.checkpoint.store import Store
from ray_jobs.inference.loading import load
from ray_jobs.serve import vllm
from ray_jobs.serve.building import num_blocks, service_of
from tests.inference.test_loading import publish_model, put_run
from tests.serve.tiny import write_model


@pytest.mark.parametrize("kv_dtype", ["model", "int8"])
def test_keys_and_values_fill_the_memory_they_are_given(tiny_model: Path, kv_dtype: Literal["model", "int8"]) -> None:
    model: Any = load(str(tiny_model), device="cpu", dtype="fp32").model
    config = model.config
    each = config.head_dim * 4 if kv_dtype == "model" else config.head_dim + 4
    block = 8 * 2 * config.num_hidden_layers * config.num_key_value_heads * each
    spec = EngineSpec(block_size=8, kv_dtype=kv_dtype)
    assert num_blocks(model, spec, 100.5 * block / 2**30) == 100
    assert num_blocks(model, spec, None) == spec.num_blocks
    with pytest.raises(ValueError, match="raise kv_gb"):
        num_blocks(model, spec, 1.5 * block / 2**30)


def test_a_model_that_the_engine_cannot_serve_is_told_of(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    tokens = load(str(folder), device="cpu", dtype="fp32").num_tokens
    MptForCausalLM(MptConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=tokens)).save_pretrained(folder)
    spec = ServeSpec(model=str(folder), device="cpu", kv_gb=0.1)
    with pytest.raises(ValueError):
        service_of(load(str(folder), device="cpu", dtype="fp32"), spec)


def test_without_vllm_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install vllm"):
        vllm.hand_over(ServeSpec(model="owner/name"))


def test_vllm_is_given_the_nodes_files_and_no_form_that_a_base_model_never_saw(
    file_store: Store, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    node = publish_model(file_store, "pretrain", tiny_model)
    put_run(file_store, "20260101-000000-demo-aaaa", {"pretrain": (node, "DONE")})
    for _ in range(2):  # the second lays the files out anew
        given = vllm.arguments(ServeSpec(model="last", store=file_store.url, port=8001, dtype="bf16"))
    options = dict(zip(given[::2], given[1::2], strict=True))
    folder = Path(options.pop("--model"))
    assert {file.name for file in folder.iterdir()} == {file.name for file in tiny_model.iterdir()} - {vllm.TEMPLATE}
    assert load(str(folder), device="cpu").is_base
    assert options == {
        "--served-model-name": f"pretrain-{node.key[:16]}",
        "--host": "127.0.0.1",
        "--port": "8001",
        "--dtype": "bfloat16",
        "--max-num-seqs": "64",
    }
