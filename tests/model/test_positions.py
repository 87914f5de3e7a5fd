"""Positions against golden values, plain formulas and transformers' own."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from configs.model import ModelSpec, RopeScaling
from configs.pretrain import PretrainSpec
from configs.size import model_size
from ray_jobs.model.architecture import decoder_layers, empty_model, initialise, materialise, transformers_config
from ray_jobs.model.files import context_of
from ray_jobs.model.positions import ntk_theta

CPU = torch.device("cpu")
ORIGINAL = 4096


def spec_of(theta: float = 1e4, positions: int = 4 * ORIGINAL, **scaling: Any) -> ModelSpec:
    """One head of width 128."""
    chosen = RopeScaling(**scaling) if scaling else None
    return ModelSpec(
        hidden=128, heads=1, layers=1, intermediate=16, max_positions=positions, rope_theta=theta, rope_scaling=chosen
    )


def model_of(spec: ModelSpec, num_tokens: int = 32) -> Any:
    model = empty_model(transformers_config(spec, num_tokens))
    materialise(model, CPU)
    initialise(model, seed=0)
    return model.eval()


def frequencies(spec: ModelSpec) -> torch.Tensor:
    """What the built model turns by: [64]."""
    return model_of(spec).model.rotary_emb.inv_freq


def test_position_interpolation_divides_all_frequencies() -> None:
    found = frequencies(spec_of(method="linear", factor=4))
    assert torch.allclose(found * 4, frequencies(spec_of()))
    assert found.sum().item() == pytest.approx(1.86498855, rel=1e-6)


def test_static_ntk_is_exported_as_another_base() -> None:
    spec = spec_of(method="ntk", factor=4)
    assert ntk_theta(1e4, 4, 128) == pytest.approx(40889.9424, abs=1e-4)
    assert ntk_theta(1e4, 8, 128) == pytest.approx(82684.6226, abs=1e-4)
    assert transformers_config(spec, 32).rope_parameters == {
        "rope_type": "default",
        "rope_theta": ntk_theta(1e4, 4, 128),
    }
    found, plain = frequencies(spec), frequencies(spec_of())
    assert found[0] == plain[0] and found[-1].item() == pytest.approx(plain[-1].item() / 4, rel=1e-5)


def test_dynamic_ntk_grows_with_the_text() -> None:
    model = model_of(spec_of(positions=ORIGINAL, method="dynamic", factor=4))
    rotary = model.model.rotary_emb
    assert torch.equal(rotary.inv_freq, frequencies(spec_of()))
    rotary(torch.zeros(1, 1, 128), torch.arange(4 * ORIGINAL)[None])
    assert rotary.inv_freq.sum().item() == pytest.approx(5.93171602, rel=1e-5)
    base = 1e4 * (4 * 4 - 3) ** (128 / 126)
    assert base == pytest.approx(135401.97, abs=1e-2)
    assert rotary.inv_freq[-1].item() == pytest.approx(base ** (-126 / 128), rel=1e-4)


def test_yarn_keeps_high_frequencies_interpolates_low_ones_and_sharpens_attention() -> None:
    spec = spec_of(method="yarn", factor=4, original_positions=ORIGINAL)
    found = frequencies(spec)
    golden = {16: 0.1, 20: 0.05623413, 32: 0.006538462, 45: 4.294026e-4, 46: 3.333804e-4}
    for place, value in golden.items():
        assert found[place].item() == pytest.approx(value, rel=1e-6), place
    assert found.sum().item() == pytest.approx(7.38417865, rel=1e-6)
    rotary = model_of(spec).model.rotary_emb
    assert rotary.attention_scaling == pytest.approx(1.138629436) == 0.1 * math.log(4) + 1
    cos, _ = rotary(torch.zeros(1, 1, 128), torch.zeros(1, 1, dtype=torch.long))
    assert cos.max().item() == pytest.approx(1.138629436)
    # By the paper's ramp, written out: turns within the original context decide.
    plain = frequencies(spec_of())
    turning = [64 * math.log(ORIGINAL / (turns * 2 * math.pi)) / math.log(1e4) for turns in (32, 1)]
    low, high = math.floor(turning[0]), math.ceil(turning[1])
    assert (low, high) == (20, 46)
    ramp = ((torch.arange(64) - low) / (high - low)).clamp(0, 1)
    assert torch.allclose(found, plain / 4 * ramp + plain * (1 - ramp), rtol=1e-5)


def test_llama3_scaling_is_that_of_llama_3_1() -> None:
    spec = spec_of(theta=5e5, method="llama3", factor=8, original_positions=8192)
    assert frequencies(spec).sum().item() == pytest.approx(5.38605826, rel=1e-6)


@pytest.mark.parametrize("scaled", ["linear", "ntk", "dynamic", "yarn", "llama3"])
def test_what_is_exported_computes_what_was_trained(scaled: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    original = {"original_positions": 64} if scaled in ("yarn", "llama3") else {}
    spec = ModelSpec(
        hidden=32,
        layers=2,
        heads=2,
        intermediate=48,
        max_positions=256,
        rope_scaling=RopeScaling(method=scaled, factor=4, **original),
    )
    model = model_of(spec)
    written = transformers_config(spec, 32).to_dict()
    loaded = AutoModelForCausalLM.from_config(AutoConfig.for_model(**written)).eval()
    loaded.load_state_dict(model.state_dict())
    tokens_BL = torch.arange(200)[None] % 32
    logits_BLV = model(tokens_BL).logits
    assert torch.equal(logits_BLV, loaded(tokens_BL).logits)
    plain = model_of(spec.model_copy(update={"rope_scaling": None}))
    assert torch.equal(logits_BLV, plain(tokens_BL).logits) == (scaled == "dynamic")  # which changes longer texts only


def plain_mpt(model: Any, tokens_L: torch.Tensor, slopes: list[float]) -> torch.Tensor:
    """Logits of an MPT of one sequence, with the bias −slope·(i−j) written out."""
    length = len(tokens_L)
    hidden_LH = model.transformer.wte.weight[tokens_L]
    distance_LL = torch.arange(length)[:, None] - torch.arange(length)[None]
    for layer in decoder_layers(model):
        query, key, value = layer.attn.Wqkv(layer.norm_1(hidden_LH)).chunk(3, dim=-1)
        width = query.shape[-1] // len(slopes)
        heads = []
        for head, slope in enumerate(slopes):
            part = slice(head * width, (head + 1) * width)
            scores_LL = query[:, part] @ key[:, part].T / math.sqrt(width) - slope * distance_LL
            heads.append(scores_LL.masked_fill(distance_LL < 0, -torch.inf).softmax(-1) @ value[:, part])
        hidden_LH = hidden_LH + layer.attn.out_proj(torch.cat(heads, dim=-1))
        inner = torch.nn.functional.gelu(layer.ffn.up_proj(layer.norm_2(hidden_LH)))
        hidden_LH = hidden_LH + layer.ffn.down_proj(inner)
    return model.transformer.norm_f(hidden_LH) @ model.lm_head.weight.T


EIGHT = [2.0**-i for i in range(1, 9)]


@pytest.mark.parametrize(
    ("heads", "slopes"), [(8, EIGHT), (12, [*EIGHT, 0.70710678, 0.35355339, 0.17677670, 0.08838835])]
)
def test_mpt_attends_with_alibi(heads: int, slopes: list[float]) -> None:
    spec = ModelSpec(architecture="mpt", hidden=48 * 2, heads=heads, layers=2, intermediate=384, init_std=0.2)
    model = model_of(spec)
    tokens_L = torch.arange(40) * 7 % 32
    assert torch.allclose(model(tokens_L[None]).logits[0], plain_mpt(model, tokens_L, slopes), atol=2e-4)
    assert context_of(model) == 128
    size = model_size(spec, 32, 64)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"architecture": "mpt", "kv_heads": 2}, "leave out kv_heads"),
        ({"architecture": "mpt", "intermediate": 384}, "set it to 512"),
        ({"architecture": "mpt", "intermediate": 512, "rope_theta": 5e5}, "leave out rope_theta"),
        ({"rope_scaling": {"method": "linear", "factor": 4, "beta_fast": 9}}, "linear has no beta_fast"),
        ({"rope_scaling": {"method": "yarn", "factor": 4}}, "needs original_positions"),
        ({"rope_scaling": {"method": "yarn", "factor": 4, "original_positions": 9999}}, "raise max_positions"),
        ({"rope_scaling": {"method": "ntk", "factor": 0.5}}, "greater than 1"),
    ],
)
def test_positions_that_a_class_does_not_have_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ModelSpec(**fields)


def test_packed_documents_are_refused_with_alibi() -> None:
    with pytest.raises(ValidationError, match="set packing to concatenate"):
        PretrainSpec(model=ModelSpec(architecture="mpt", intermediate=512), packing="best-fit")
