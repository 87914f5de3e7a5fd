"""A loaded model whose positions are stretched is the one that transformers loads with that configuration."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from configs.inference import DecodingSpec
from configs.model import ModelSpec
from ray_jobs.inference.engine import Engine
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.files import context_of
from ray_jobs.model.positions import kind_of_positions, ntk_theta, set_text_length, stretch

ORIGINAL, WIDTH, THETA = 32, 16, 1e4
SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": ORIGINAL,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
CLASSES: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"head_dim": WIDTH}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": WIDTH}),
}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA},
    "ntk": {"rope_type": "default", "rope_theta": ntk_theta(THETA, 4.0, WIDTH)},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": THETA},
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": THETA,
        "original_max_position_embeddings": ORIGINAL,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "rope_theta": THETA,
        "original_max_position_embeddings": ORIGINAL,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}
TOKENS_BL = torch.arange(4 * ORIGINAL)[None] * 7 % 61


@pytest.fixture(params=CLASSES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config_class, model_class, changes = CLASSES[request.param]
    torch.manual_seed(3)
    model_class(config_class(**SHAPE, **changes)).save_pretrained(tmp_path)
    return tmp_path


def loaded(folder: Path, **changes: Any) -> Any:
    config = AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()


@torch.no_grad()
@pytest.mark.parametrize("method", SCALED)
def test_a_stretched_model_is_the_one_loaded_so(folder: Path, method: Any) -> None:
    positions = ORIGINAL if method == "dynamic" else 4 * ORIGINAL
    oracle = loaded(folder, rope_parameters=SCALED[method], max_position_embeddings=positions)
    model = loaded(folder)
    plain_BLV = model(TOKENS_BL).logits
    stretch(model, method, 4.0, ORIGINAL)
    assert torch.equal(model.model.rotary_emb.inv_freq, oracle.model.rotary_emb.inv_freq)
    logits_BLV = model(TOKENS_BL).logits
    assert torch.equal(logits_BLV, oracle(TOKENS_BL).logits)
    assert not torch.allclose(logits_BLV, plain_BLV, atol=1e-3)
    assert context_of(model) == positions


@torch.no_grad()
@pytest.mark.parametrize("method", SCALED)
def test_a_factor_of_one_changes_nothing(folder: Path, method: Any) -> None:
    model = loaded(folder)
    plain_BLV = model(TOKENS_BL).logits
    stretch(model, method, 1.0, ORIGINAL)
    assert torch.equal(model(TOKENS_BL).logits, plain_BLV)


@torch.no_grad()
def test_dynamic_frequencies_are_those_of_the_length_whatever_came_before(folder: Path) -> None:
    model = loaded(folder)
    stretch(model, "dynamic", 4.0, ORIGINAL)
    fresh = {}
    for length in (48, 128):
        set_text_length(model, length)
        fresh[length] = model(TOKENS_BL[:, :length]).logits
    # transformers' own keep those of the longest text.
    assert not torch.equal(model(TOKENS_BL[:, :48]).logits, fresh[48])
    set_text_length(model, 48)
    assert torch.equal(model(TOKENS_BL[:, :48]).logits, fresh[48])
    oracle = loaded(folder, rope_parameters=SCALED["dynamic"])
    assert torch.equal(oracle(TOKENS_BL[:, :48]).logits, fresh[48])


@torch.no_grad()
def test_keys_that_are_kept_fit_dynamic_frequencies_set_beforehand(folder: Path) -> None:
    model = loaded(folder)
    stretch(model, "dynamic", 4.0, ORIGINAL)
    set_text_length(model, 100)
    whole_BLV = model(TOKENS_BL[:, :100]).logits
    begun = model(TOKENS_BL[:, :60], use_cache=True)
    rest_BLV = model(TOKENS_BL[:, 60:100], past_key_values=begun.past_key_values).logits
    assert torch.allclose(whole_BLV[:, 60:], rest_BLV, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn", "llama3"])
def test_the_engine_serves_a_stretched_model(folder: Path, method: Any) -> None:
    served, plain = loaded(folder), loaded(folder)
    for model in (served, plain):
        stretch(model, method, 4.0, ORIGINAL)
    prompt = TOKENS_BL[0, :100].tolist()
    engine = Engine(served, 61)
    (request,) = engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=20))
    while request.reason is None:
        engine.step()
    prompt_BL = TOKENS_BL[:, :100]
    written_BL = plain.generate(
        prompt_BL, attention_mask=torch.ones_like(prompt_BL), max_new_tokens=20, do_sample=False
    )
    assert request.answer == written_BL[0, 100:].tolist()


def test_the_engine_refuses_dynamic_positions(folder: Path) -> None:
    model = loaded(folder)
    stretch(model, "dynamic", 4.0, ORIGINAL)
    with pytest.raises(ValueError, match="keys cannot be kept: choose yarn or linear"):
        Engine(model, 61)


@torch.no_grad()
def test_alibi_reads_texts_beyond_its_length() -> None:
    spec = ModelSpec(architecture="mpt", hidden=32, heads=4, layers=2, intermediate=128, max_positions=16, init_std=0.2)
    model = empty_model(transformers_config(spec, 61))
    materialise(model, torch.device("cpu"))
    initialise(model, seed=0)
    model.eval()
    within_BLV = model(TOKENS_BL[:, :16]).logits
    set_text_length(model, 64)
    longer_BLV = model(TOKENS_BL[:, :64]).logits
    assert torch.allclose(longer_BLV[:, :16], within_BLV, atol=1e-5)
    begun = model(TOKENS_BL[:, :40], use_cache=True)
    rest_BLV = model(TOKENS_BL[:, 40:64], past_key_values=begun.past_key_values).logits
    assert torch.allclose(longer_BLV[:, 40:], rest_BLV, atol=1e-4)


def test_what_cannot_be_stretched_is_refused(folder: Path) -> None:
    model = loaded(folder)
    with pytest.raises(ValueError, match=r"a factor of 0.5 would shorten the context: give one from 1"):
        stretch(model, "yarn", 0.5, ORIGINAL)
    stretch(model, "yarn", 2.0, ORIGINAL)
    with pytest.raises(ValueError, match="of type yarn already, and are not stretched twice"):
        stretch(model, "linear", 2.0, ORIGINAL)
    spec = ModelSpec(architecture="mpt", hidden=32, heads=4, layers=1, intermediate=128)
    alibi = empty_model(transformers_config(spec, 61))
    with pytest.raises(ValueError, match=r"has ALiBi, which is chosen in training.*measure it as trained"):
        stretch(alibi, "linear", 2.0, ORIGINAL)
    with pytest.raises(ValueError, match=r"type gpt2 has neither rotary positions nor MPT's ALiBi.*leave it out"):
        kind_of_positions(GPT2Config())
    narrow = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "head_dim": 2}))
    with pytest.raises(ValueError, match="ntk has no effect on heads of which two dimensions are turned"):
        stretch(narrow, "ntk", 2.0, ORIGINAL)
