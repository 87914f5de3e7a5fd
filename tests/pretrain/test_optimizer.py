import pytest
import torch
from torch import nn

from configs.model import ModelSpec
from configs.pretrain import OptimizerSpec
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.loss import LossModel
from ray_jobs.pretrain.optimizer import (
    build_adamw,
    optimizer_tensors,
    parameter_groups,
    set_optimizer_step,
    sum_of_squares,
)
from ray_jobs.pretrain.step import take_step


def built(**fields: object) -> nn.Module:
    spec = ModelSpec.model_validate({"hidden": 32, "layers": 2, "heads": 2, "intermediate": 48, **fields})
    model = empty_model(transformers_config(spec, 100))
    materialise(model, torch.device("cpu"))
    initialise(model, seed=0)
    return model


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_exactly_one_group(architecture: str, tied: bool) -> None:
    model = built(architecture=architecture, tied_embeddings=tied)
    decayed, kept = parameter_groups(model)
    ids = [id(parameter) for parameter in (*decayed.values(), *kept.values())]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert all(parameter.ndim == 2 for parameter in decayed.values())
    assert "model.embed_tokens.weight" in kept
    assert "model.norm.weight" in kept and "model.layers.0.input_layernorm.weight" in kept
    assert ("lm_head.weight" in decayed) == (not tied)
    assert "lm_head.weight" not in kept


def test_decay_is_decoupled_and_of_matrices_only() -> None:
    model = built()
    optimizer = build_adamw(model, OptimizerSpec(learning_rate=0.1, weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed, _ = parameter_groups(model)
    for name, parameter in model.named_parameters():
        shrunk = before[name] * (1 - 0.1 * 0.5) if name in decayed else before[name]
        torch.testing.assert_close(parameter.detach(), shrunk, msg=name)


def test_state_made_at_once_is_what_adamw_makes_itself() -> None:
    ours, theirs = built(), built()
    optimizer = build_adamw(ours, OptimizerSpec(learning_rate=0.01, weight_decay=0.0))
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for _ in range(3):
        for model, each in ((ours, optimizer), (theirs, reference)):
            generator = torch.Generator().manual_seed(1)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            each.step()
    for (name, first), second in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(first, second), name


def test_bias_correction_follows_the_step_that_is_set() -> None:
    model = built()
    optimizer = build_adamw(model, OptimizerSpec())
    set_optimizer_step(optimizer, 7)
    assert {state["step"].item() for state in optimizer.state.values()} == {7.0}


def test_the_norm_is_summed_in_fp32_whatever_the_gradients_are() -> None:
    gradients = [torch.full((100_000,), 0.01, dtype=torch.bfloat16), torch.zeros(0), torch.tensor([3.0])]
    exact = sum(gradient.double().square().sum().item() for gradient in gradients)
    assert sum_of_squares(gradients).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_without_a_finite_loss_changes_nothing(bad: float) -> None:
    model = LossModel(built())
    optimizer = build_adamw(model, OptimizerSpec(learning_rate=0.1))
    ids = torch.randint(100, (2, 17), generator=torch.Generator().manual_seed(1))
    batch = (ids[:, :-1], ids[:, 1:])
    assert take_step(model, optimizer, [batch], clip_norm=1.0).finite
    with torch.no_grad():
        model.model.model.norm.weight[0] = bad
    before = {name: tensor.clone() for name, tensor in _all_of(model, optimizer).items()}
    assert not take_step(model, optimizer, [batch], clip_norm=1.0).finite
    for name, tensor in _all_of(model, optimizer).items():
        assert torch.equal(torch.nan_to_num(tensor, nan=-1.0), torch.nan_to_num(before[name], nan=-1.0)), name
    with torch.no_grad():
        model.model.model.norm.weight[0] = 1.0
    assert take_step(model, optimizer, [batch], clip_norm=1.0).finite


def _all_of(model: LossModel, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """Weights, moments and step counts."""
    steps = {f"step.{place}": state["step"] for place, state in enumerate(optimizer.state.values())}
    return {**dict(model.named_parameters()), **optimizer_tensors(model, optimizer), **steps}
