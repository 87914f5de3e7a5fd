"""Training on packed documents: they do not see one another, and nothing else changes."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from configs.model import ModelSpec
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.store import Store
from ray_jobs.model.architecture import empty_model, initialise, materialise, transformers_config
from ray_jobs.model.loss import IGNORED, LossModel
from ray_jobs.model.recompute import Recompute
from ray_jobs.pretrain.inputs import training_samples
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.steps import StepStore
from ray_jobs.pretrain.trainer import TrainingStopped
from ray_jobs.tokenizer import packing
from ray_jobs.tokenizer.packing import PackedDataset
from tests.pretrain.corpus import publish_tokenizer, publish_tokens
from tests.pretrain.test_trainer import final, losses, stop_at

Jobs = Callable[..., TrainingJob]
BEST_FIT = {"packing": "best-fit"}


def model_of(attention: str, architecture: str, recompute: Recompute = "none") -> LossModel:
    spec = ModelSpec(architecture=architecture, hidden=32, layers=2, heads=2, intermediate=64, max_positions=600)
    config = transformers_config(spec, 512)
    config._attn_implementation = attention
    model = empty_model(config, recompute)
    materialise(model, torch.device("cpu"))
    initialise(model, seed=1)
    with torch.no_grad():  # matrices at their initial scale hardly attend
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return LossModel(model, z_weight=1e-3).train()


def gradients(model: LossModel, batches: list[tuple[torch.Tensor, ...]]) -> tuple[float, int, list[torch.Tensor]]:
    model.zero_grad()
    total, num_tokens = 0.0, 0
    for batch in batches:
        loss = model(*batch)
        loss.total.backward()
        total, num_tokens = total + loss.total.item(), num_tokens + int(loss.num_tokens)
    return total, num_tokens, [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_loss_and_gradients_are_those_of_each_document_alone(job: Jobs, attention: str, architecture: str) -> None:
    """Every document in a batch of its own, without positions, masks or padding, is what packing must equal."""
    whole = job("packed", {**BEST_FIT, "sequence_length": 600, "model": {"max_positions": 600}})
    dataset = training_samples(whole.tokens, whole.spec, whole.resources)
    assert isinstance(dataset, PackedDataset)
    batch = dataset.batch(0, 6)
    assert (batch.positions_CL == 0).sum(axis=1).max() > 2 and (batch.targets_CL == IGNORED).any()
    arrays = (batch.inputs_CL, batch.targets_CL, batch.positions_CL)
    packed = tuple(torch.from_numpy(array) for array in arrays)
    flat = [torch.from_numpy(array.ravel()) for array in arrays[:2]]
    bounds = batch.boundaries().tolist()
    alone = [tuple(array[None, first:end] for array in flat) for first, end in itertools.pairwise(bounds)]
    model = model_of(attention, architecture)
    loss, num_tokens, wanted = gradients(model, alone)
    packed_loss, packed_tokens, found = gradients(model, [packed])
    assert packed_tokens == num_tokens == int((batch.targets_CL != IGNORED).sum())
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    # The same sequences without positions: documents see one another.
    seen = gradients(model, [packed[:2]])[0]
    assert abs(seen - loss) > 1e-4 * loss


def test_the_ignored_target_is_that_of_the_loss() -> None:
    assert packing.IGNORED == IGNORED


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("changes", [{}, {"dtype": "bf16"}, {"recompute": "full"}, {"recompute": "selective"}])
def test_it_learns_and_resumes_as_on_plain_windows(job: Jobs, changes: dict[str, Any]) -> None:
    whole, parts = job("whole", {**BEST_FIT, **changes}), job("parts", {**BEST_FIT, **changes})
    train_rank(whole)
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(7))
    train_rank(parts)
    curve = losses(whole)
    assert losses(parts) == curve
    assert curve[-1][1] < curve[0][1] - 0.4
    for name, tensor in final(whole)[1].items():
        assert torch.equal(tensor, final(parts)[1][name]), name


@pytest.mark.usefixtures("one_rank")
def test_micro_batches_of_packed_documents_are_one_batch_up_to_rounding(job: Jobs) -> None:
    whole, parts = job("whole", BEST_FIT), job("parts", BEST_FIT, micro_batch=3)
    train_rank(whole)
    train_rank(parts)
    for (_, loss, norm), (_, other_loss, other_norm) in zip(losses(whole), losses(parts), strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-4)
        assert norm == pytest.approx(other_norm, rel=1e-3)


def test_runs_of_packed_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="set shuffle_run to 1, or packing to concatenate"):
        PretrainSpec(packing="best-fit", shuffle_run=2)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("changes", [{"shuffle_run": 4}, BEST_FIT])
def test_tokens_read_from_s3_as_they_are_needed_train_the_same_model(
    s3_store: Store, job: Jobs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    tokens = publish_tokens(s3_store, publish_tokenizer(s3_store))
    trained = {}
    for name, from_store in (("copied", False), ("streamed", True)):
        alike = job(name, changes)
        resources = alike.resources.model_copy(update={"tokens_from_store": from_store})
        one = replace(alike, tokens=tokens, resources=resources)
        if from_store:
            monkeypatch.setattr(type(tokens), "local_path", lambda self, file: pytest.fail("a shard was copied"))
        train_rank(one)
        assert StepStore(one.store, one.path).of_step(12) is not None
        trained[name] = (losses(one), final(one)[1])
    assert trained["copied"][0] == trained["streamed"][0]
    for name, tensor in trained["copied"][1].items():
        assert np.array_equal(tensor.numpy(), trained["streamed"][1][name].numpy()), name
