"""A loss that is no number is traced to its rank, micro-batch and module."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.model.architecture import initialise
from ray_jobs.pretrain import provenance, trainer
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.provenance import Cause, causes_of
from ray_jobs.pretrain.trainer import build
from tests.pretrain.ranks import finish, start

Jobs = Callable[..., TrainingJob]
CPU = torch.device("cpu")


@pytest.fixture
def model(job: Jobs, one_rank: None) -> Any:
    built, _ = build(job("any").spec, 512, CPU)
    initialise(built.model, seed=0)
    return built


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    tokens_BL = torch.from_numpy(np.random.default_rng(seed).integers(0, 512, (2, 33)))
    return tokens_BL[:, :-1], tokens_BL[:, 1:]


def parameter(model: Any, name: str) -> torch.Tensor:
    return dict(model.model.named_parameters())[name].to_local()


def test_sound_training_has_no_cause_and_is_left_as_it_was(model: Any) -> None:
    before = {name: value.to_local().detach().clone() for name, value in model.model.named_parameters()}
    hooks = [len(module._forward_hooks) for module in model.model.modules()]
    assert causes_of(model, [batch(), batch(1)]) == []
    for name, value in model.model.named_parameters():
        assert torch.equal(value.to_local(), before[name])
        assert value.grad is None or not value.grad.to_local().any()
    assert [len(module._forward_hooks) for module in model.model.modules()] == hooks


def test_weights_that_are_not_finite_are_named(model: Any) -> None:
    with torch.no_grad():
        parameter(model, "model.layers.1.mlp.up_proj.weight")[3, 5] = torch.nan
    assert causes_of(model, [batch()]) == [Cause(0, None, "model.layers.1.mlp.up_proj", "weights")]


def test_the_first_module_that_overflows_is_named(model: Any) -> None:
    with torch.no_grad():
        parameter(model, "model.layers.0.mlp.gate_proj.weight").fill_(1e30)
        parameter(model, "model.layers.0.mlp.up_proj.weight").fill_(1e30)
    (cause,) = causes_of(model, [batch()])
    # gate · up overflows where it is multiplied, which is the projection's input.
    assert (cause.module, cause.kind) == ("model.layers.0.mlp.down_proj", "output")
    assert "micro-batch 0: model.layers.0.mlp.down_proj is the first" in str(cause)


def test_the_micro_batch_is_named(job: Jobs, one_rank: None) -> None:
    spec = job("untied").spec
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"tied_embeddings": False})})
    model, _ = build(spec, 512, CPU)
    initialise(model.model, seed=0)
    with torch.no_grad():
        parameter(model, "model.embed_tokens.weight")[7] = 3e38  # its square overflows: the norm gives 0
    clean, poisoned = batch(), batch(1)
    clean[0][clean[0] == 7] = 8
    poisoned[0][1, 4] = 7
    (cause,) = causes_of(model, [clean, poisoned])
    assert (cause.micro_batch, cause.kind) == (1, "gradient")


def test_a_gradient_that_alone_is_not_finite_is_named(model: Any) -> None:
    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))

    model.model.model.layers[1].input_layernorm.register_forward_hook(spoil)
    (cause,) = causes_of(model, [batch()])
    assert (cause.module, cause.kind) == ("model.layers.1.input_layernorm.weight", "gradient")


def test_training_tells_weights(job: Jobs, one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.initialise

    def broken(model: Any, seed: int) -> None:
        real(model, seed)
        with torch.no_grad():
            model.model.layers[0].self_attn.v_proj.weight.to_local()[0, 0] = torch.inf

    monkeypatch.setattr(trainer, "initialise", broken)
    said = r"at step 0, .*: rank 0: weights of model.layers.0.self_attn.v_proj are not finite. Lower opt"
    with pytest.raises(ValueError, match=said):
        train_rank(job("broken", micro_batch=3))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        # A rank's own part of a sum that another rank spoiled, beside what spoiled it.
        ([(0, 1, "a", "output"), (1, 1, "norm.weight", "gradient")], [(0, 1, "a", "output")]),
        # Weights that all ranks gather, and lie on one.
        ([(0, 0, "a", "output"), (1, None, "b", "weights")], [(1, None, "b", "weights")]),
        ([(0, 1, "a.weight", "gradient"), (1, 0, "b.weight", "gradient")], [(None, 0, "b.weight", "gradient")]),
        ([(0, 0, "a", "output"), (1, 2, "b", "output")], [(0, 0, "a", "output"), (1, 2, "b", "output")]),
        ([None, (1, 0, "b", "output")], [(1, 0, "b", "output")]),
    ],
)
def test_no_rank_is_named_for_what_another_did(
    model: Any, monkeypatch: pytest.MonkeyPatch, found: list[Any], told: list[Any]
) -> None:
    gathered = [None if one is None else Cause(*one) for one in found]
    monkeypatch.setattr(provenance.dist, "get_world_size", lambda: len(gathered))
    monkeypatch.setattr(provenance.dist, "all_gather_object", lambda out, own: out.__setitem__(slice(None), gathered))
    monkeypatch.setattr(provenance, "_own_cause", lambda *arguments: None)
    assert causes_of(model, []) == [Cause(*one) for one in told]


def test_training_tells_the_samples_of_an_output(job: Jobs, one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.initialise

    def broken(model: Any, seed: int) -> None:
        real(model, seed)
        with torch.no_grad():
            for name in ("gate_proj", "up_proj"):
                getattr(model.model.layers[0].mlp, name).weight.to_local().fill_(1e30)

    monkeypatch.setattr(trainer, "initialise", broken)
    said = r"rank 0, micro-batch 0: model.layers.0.mlp.down_proj is the first .*\(samples 0 to 2\)\. Lower opt"
    with pytest.raises(ValueError, match=said):
        train_rank(job("broken", micro_batch=3))


@pytest.mark.slow
def test_the_rank_is_named(job: Jobs, training: Callable[..., dict[str, Any]]) -> None:
    steep = {"optimizer": {"learning_rate": 1e18, "warmup_steps": 0, "clip_norm": 1e30}}
    for status, output in finish(start(2, [training("steep", steep)])):
        assert status == 1
        assert "rank 0, micro-batch 0: " in output and "; rank 1, micro-batch 0: " in output
        assert "(samples" in output
