"""Float8 products, emulated on the CPU, against the same layer's in bf16."""

import copy

import pytest
import torch

from configs.model import ModelSpec
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.float8 import to_float8

pytest.importorskip("torchao.float8", reason="needs torchao: pip install 'headrace[float8]'")
CPU = torch.device("cpu")


def model_of(**changes: int) -> torch.nn.Module:
    spec = ModelSpec(**{"hidden": 64, "layers": 2, "intermediate": 96, **changes})
    model = empty_model(transformers_config(spec, 256))
    materialise(model, CPU)
    initialise(model, seed=1)
    return model.to(torch.bfloat16)


def test_products_and_gradients_are_those_of_bf16_but_for_the_bits_that_float8_lacks() -> None:
    plain = model_of()
    cast = copy.deepcopy(plain)
    for layer in cast.model.layers:
        to_float8(layer, CPU)
    tokens_BL = torch.arange(64).reshape(2, 32) * 3 % 256
    for model in (plain, cast):
        model(input_ids=tokens_BL, labels=tokens_BL, use_cache=False).loss.backward()
    differ = False
    for (name, one), (_, other) in zip(plain.named_parameters(), cast.named_parameters(), strict=True):
        one_grad, other_grad = one.grad.float(), other.grad.float()
        likeness = torch.cosine_similarity(one_grad.flatten(), other_grad.flatten(), dim=0)
        # e4m3 rounds to 1 part in 16: errors of a product of 64 terms average out to some hundredths.
        assert likeness > 0.97, name
        differ |= not torch.equal(one_grad, other_grad)
    assert differ


def test_names_and_weights_stay_and_odd_sides_are_left_as_they_are() -> None:
    plain = model_of(intermediate=100)
    cast = copy.deepcopy(plain)
    for layer in cast.model.layers:
        to_float8(layer, CPU)
    assert {name: value.shape for name, value in cast.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    classes = {type(module).__name__ for module in cast.modules() if isinstance(module, torch.nn.Linear)}
    assert classes == {"Float8Linear", "Linear"}
    layer = cast.model.layers[0]
    assert type(layer.self_attn.q_proj).__name__ == "Float8Linear" and type(layer.mlp.down_proj) is torch.nn.Linear
