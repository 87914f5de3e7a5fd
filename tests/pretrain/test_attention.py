"""What is said of each layer's attention is what transformers' own weights say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ray_jobs.model.architecture import initialise
from ray_jobs.pretrain.attention import attention_figures
from ray_jobs.pretrain.launch import TrainingJob
from ray_jobs.pretrain.trainer import build

Jobs = Callable[..., TrainingJob]
SHAPE = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_positions": 32}


def model_of(job: Jobs, **changes: Any) -> Any:
    built, _ = build(job("any", {"model": {**SHAPE, **changes}}).spec, 512, torch.device("cpu"))
    initialise(built.model, seed=0)
    with torch.no_grad():  # matrices at their initial scale hardly attend
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return built


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens_BL = torch.randint(0, 512, (2, 33), generator=torch.Generator().manual_seed(0))
    return tokens_BL[:, :-1], tokens_BL[:, 1:]


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_they_are_those_of_transformers_weights(job: Jobs, architecture: str) -> None:
    model = model_of(job, architecture=architecture)
    before = model(*batch()).total.item()
    figures = attention_figures(model, batch())
    assert model(*batch()).total.item() == before
    model.model.config._attn_implementation = "eager"
    with torch.no_grad():
        weights = model.model.base_model(batch()[0], use_cache=False, output_attentions=True).attentions
    entropies = [torch.special.entr(weights_BHLS).sum(-1).mean().item() for weights_BHLS in weights]
    assert figures["attention_entropy"] == pytest.approx(entropies, rel=1e-5)
    assert all(0.1 < entropy < 3 for entropy in entropies)
    # A logit is a weight's logarithm up to what its row adds to all.
    assert len(figures["attention_max_logit"]) == 2 and max(figures["attention_max_logit"]) > 1


@pytest.mark.usefixtures("one_rank")
def test_a_collapse_shows_as_large_logits_and_no_entropy_and_qk_norm_prevents_it(job: Jobs) -> None:
    grown, fallen = {}, {}
    for architecture in ("llama", "qwen3"):
        model = model_of(job, architecture=architecture)
        before = attention_figures(model, batch())
        with torch.no_grad():
            for name in ("q_proj", "k_proj"):
                getattr(model.model.model.layers[0].self_attn, name).weight.mul_(10)
        after = attention_figures(model, batch())
        grown[architecture] = after["attention_max_logit"][0] / before["attention_max_logit"][0]
        fallen[architecture] = after["attention_entropy"][0] / before["attention_entropy"][0]
    assert grown["llama"] == pytest.approx(100, rel=1e-4)
    assert grown["qwen3"] == pytest.approx(1, rel=1e-2)
    assert fallen["llama"] < 0.1
    assert fallen["qwen3"] == pytest.approx(1, rel=1e-2)


@pytest.mark.usefixtures("one_rank")
def test_packed_documents_are_kept_apart(job: Jobs) -> None:
    """A document that is attended to alone has the entropy that it has in a pack."""
    model = model_of(job)
    inputs_BL, targets_BL = (part[:1] for part in batch())
    positions_BL = torch.cat([torch.arange(16), torch.arange(16)])[None]
    packed = attention_figures(model, (inputs_BL, targets_BL, positions_BL))
    alone = attention_figures(model, (inputs_BL.reshape(2, 16), targets_BL.reshape(2, 16)))
    assert packed["attention_entropy"] == pytest.approx(alone["attention_entropy"], rel=1e-5)
    assert packed["attention_max_logit"] == pytest.approx(alone["attention_max_logit"], rel=1e-5)
