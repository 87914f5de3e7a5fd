"""The classes are transformers' own, and initial weights are what the spec says."""

import math

import pytest
import torch
from pydantic import ValidationError

from configs.model import ModelSpec
from configs.size import model_size, peak_flops
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config

SPECS = [
    ModelSpec(hidden=32, layers=2, heads=4, intermediate=48),
    ModelSpec(hidden=32, layers=3, heads=4, kv_heads=2, head_dim=16, intermediate=48, tied_embeddings=False),
    ModelSpec(architecture="qwen3", hidden=32, layers=2, heads=4, kv_heads=1, head_dim=16, intermediate=48),
    ModelSpec(hidden=32, layers=1, heads=2, intermediate=48, vocabulary_multiple=64),
]


def built(spec: ModelSpec, seed: int = 0) -> torch.nn.Module:
    model = empty_model(transformers_config(spec, 100))
    materialise(model, torch.device("cpu"))
    initialise(model, seed)
    return model


@pytest.mark.parametrize("spec", SPECS)
def test_parameter_count_is_that_of_transformers(spec: ModelSpec) -> None:
    assert model_size(spec, 100, 32).parameters == sum(parameter.numel() for parameter in built(spec).parameters())


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_from_the_meta_device_computes_what_transformers_computes(spec: ModelSpec) -> None:
    model = built(spec)
    reference = type(model)(transformers_config(spec, 100))
    reference.load_state_dict(model.state_dict())
    tokens = torch.arange(24).view(2, 12)
    assert torch.equal(model.eval()(tokens).logits, reference.eval()(tokens).logits)


def test_initial_weights_have_the_deviations_of_gpt2_and_depend_on_the_seed_alone() -> None:
    spec = ModelSpec(hidden=256, layers=8, heads=4, intermediate=512, init_std=0.05)
    model, again, other = built(spec), built(spec), built(spec, seed=1)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
            continue
        assert not torch.equal(parameter, other.get_parameter(name)), name
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        expected = 0.05 / math.sqrt(16) if residual else 0.05
        assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
    layers = model.model.layers
    assert not torch.equal(layers[0].self_attn.q_proj.weight, layers[1].self_attn.q_proj.weight)


def test_flops_a_token_are_six_a_parameter_and_attention_without_its_causal_half() -> None:
    # 1.1 billion parameters.
    spec = ModelSpec(
        hidden=2048, layers=16, heads=16, kv_heads=8, intermediate=8192, max_positions=4096, tied_embeddings=False
    )
    size = model_size(spec, 32_000, 4096)
    matrices = 16 * (2048 * 128 * (2 * 16 + 2 * 8) + 3 * 2048 * 8192) + 32_000 * 2048
    norms = (2 * 16 + 1) * 2048
    assert size.matrix_parameters == matrices + norms
    assert size.parameters == matrices + norms + 32_000 * 2048
    assert size.flops_per_token == 6 * size.matrix_parameters + 12 * 16 * 16 * 128 * 4096
    tied = model_size(spec.model_copy(update={"tied_embeddings": True}), 32_000, 4096)
    assert tied.flops_per_token == size.flops_per_token


def test_peaks_are_known_by_the_device_name_and_none_is_invented() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("AMD EPYC") is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hidden": 130, "heads": 4}, "hidden .130. must be a multiple of heads"),
        ({"heads": 4, "kv_heads": 3}, "heads .4. must be a multiple of kv_heads"),
        ({"head_dim": 7}, "head_dim .7. must be even"),
    ],
)
def test_shapes_that_cannot_be_are_refused(fields: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ModelSpec(**fields)
