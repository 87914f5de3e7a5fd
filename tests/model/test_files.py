"""What is written loads with `from_pretrained` and computes the same."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from configs.model import ModelSpec
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.files import Vocabulary, config_values, model_files

VOCABULARY = Vocabulary(num_tokens=100, eos_id=3, bos_id=None, pad_id=None)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_written_files_load_with_from_pretrained(tmp_path: Path, architecture: str, tied: bool) -> None:
    spec = ModelSpec.model_validate(
        {
            "architecture": architecture,
            "hidden": 32,
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "intermediate": 48,
            "rope_theta": 5e5,
            "tied_embeddings": tied,
        }
    )
    model = empty_model(transformers_config(spec, 100))
    materialise(model, torch.device("cpu"))
    initialise(model, seed=0)
    files = model_files(spec, VOCABULARY, dict(model.named_parameters()), "fp32")
    for name, file in files.items():
        (tmp_path / name).write_bytes(file.data)
    loaded, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert type(loaded).__name__ == {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[architecture]
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    tokens = torch.arange(20).view(2, 10)
    assert torch.equal(loaded.eval()(tokens).logits, model.eval()(tokens).logits)
    assert loaded.generation_config.eos_token_id == 3
    assert loaded.generation_config.pad_token_id == 3
    assert loaded.config.pad_token_id is None  # else a trainer would mask the end of text as padding


def test_bf16_is_stored_as_such(tmp_path: Path) -> None:
    spec = ModelSpec(hidden=32, layers=1, heads=2, intermediate=48)
    weights = {"model.norm.weight": torch.tensor([1.0, 1.001])}
    files = model_files(spec, VOCABULARY, weights, "bf16")
    assert json.loads(files["config.json"].data)["dtype"] == "bfloat16"
    from safetensors.torch import load

    assert load(files["model.safetensors"].data)["model.norm.weight"].dtype == torch.bfloat16


def test_config_values_are_fields_that_transformers_knows() -> None:
    known = set(LlamaConfig().to_dict()) | {"architectures", "model_type", "dtype"}
    assert set(config_values(ModelSpec(), 100)) <= known
