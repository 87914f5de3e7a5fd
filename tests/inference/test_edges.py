"""What models cannot be served, what settings are at the edge, and what happens when the weights change."""

from typing import Any

import pytest
import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.blocks import Blocks
from ray_jobs.inference.decoding import log_probabilities
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.speculation import Proposal, verified
from tests.inference.test_engine import SHAPE, VOCABULARY, model_of, written_without_cache

GREEDY = DecodingSpec(temperature=0, max_new_tokens=12)
PROMPT = list(range(3, 43))


def answer_of(engine: Engine, spec: DecodingSpec = GREEDY) -> list[int]:
    (request,) = engine.add(PROMPT, spec)
    engine.run()
    return request.answer


def test_without_a_prefix_cache_nothing_is_kept() -> None:
    for keeps in (True, False):
        engine = Engine(model_of(), VOCABULARY, spec=EngineSpec(block_size=4, prefix_cache=keeps))
        answer_of(engine)
        assert engine.blocks.begin(PROMPT).length == (36 if keeps else 0)


def test_weights_that_change_in_place_are_seen_and_what_old_ones_computed_is_forgotten() -> None:
    model = model_of()
    engine = Engine(model, VOCABULARY, spec=EngineSpec(block_size=4))
    first = answer_of(engine)
    other = model_of("yarn")
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs.roll(1, dims=0))
    engine.add(PROMPT, GREEDY)
    engine.step()
    with pytest.raises(ValueError, match="run or cancel them first"):
        engine.weights_changed()
    engine.run()
    engine.weights_changed()
    assert engine.blocks.num_available == engine.blocks.num_blocks
    changed = answer_of(engine)
    assert changed != first and changed == written_without_cache(model, PROMPT, GREEDY)


def test_blocks_that_are_held_cannot_be_forgotten() -> None:
    blocks = Blocks(4, 2)
    blocks.extend(blocks.begin([1, 2]), 2)
    with pytest.raises(AssertionError):
        blocks.forget()


@pytest.mark.parametrize(
    ("config_class", "model_class", "changes", "said"),
    [
        (MistralConfig, MistralForCausalLM, {"sliding_window": 16}, "sliding window of 16"),
        (GraniteConfig, GraniteForCausalLM, {"embedding_multiplier": 2.0}, "serve it by generate"),
        (GptOssConfig, GptOssForCausalLM, {"num_local_experts": 2}, "serve it by generate"),
    ],
)
def test_models_that_compute_otherwise_are_refused(
    config_class: Any, model_class: Any, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Engine(model_class(config_class(**SHAPE, **changes)), VOCABULARY)


def test_a_model_without_rotary_attention_is_refused() -> None:
    model = MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=1, vocab_size=VOCABULARY, max_seq_len=64))
    with pytest.raises(ValueError, match="serve it by generate"):
        Engine(model, VOCABULARY)


def test_mistral_without_a_window_is_served() -> None:
    torch.manual_seed(1)
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)).eval()
    assert answer_of(Engine(model, VOCABULARY)) == written_without_cache(model, PROMPT, GREEDY)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kv_dtype", ["model", "int8"])
def test_halves_are_served_on_processors(dtype: torch.dtype, kv_dtype: Any) -> None:
    engine = Engine(model_of().to(dtype), VOCABULARY, spec=EngineSpec(kv_dtype=kv_dtype))
    assert len(answer_of(engine)) == 12


def test_an_answer_that_was_cancelled_stays_so() -> None:
    engine = Engine(model_of(), VOCABULARY)
    first, second, third = engine.add(PROMPT, GREEDY, 3)
    engine.cancel(second)
    engine.cancel(first)
    engine.run()
    assert [request.reason for request in (first, second, third)] == ["cancelled", "cancelled", "length"]
    assert second.answer == [] and len(third.answer) == 12


def test_a_temperature_near_zero_takes_the_likeliest() -> None:
    engine = Engine(model_of(), VOCABULARY)
    greedy = answer_of(engine)
    for temperature in (1e-40, 1e-7):
        assert answer_of(engine, GREEDY.model_copy(update={"temperature": temperature})) == greedy


def test_more_likeliest_tokens_than_there_are_give_all() -> None:
    ((chosen, top),) = log_probabilities(torch.tensor([[0.0, 1.0, 2.0]]), [1], 20)
    assert [token for token, _ in top] == [2, 1, 0]
    assert chosen == pytest.approx(-1.4076, abs=1e-4)


def test_log_probabilities_are_the_models_own() -> None:
    model = model_of()
    spec = GREEDY.model_copy(update={"temperature": 0.7, "top_k": 3, "logprobs": 2})
    (request,) = (engine := Engine(model, VOCABULARY)).add(PROMPT, spec)
    engine.run()
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        logits = model(torch.tensor([request.tokens]), use_cache=False).logits[0, len(PROMPT) - 1 : -1]
    wanted = logits.log_softmax(dim=1)
    assert [one.token for one in request.logprobs] == request.answer
    for place, one in enumerate(request.logprobs):
        assert one.logprob == pytest.approx(float(wanted[place, one.token]), abs=1e-4)
        assert [token for token, _ in one.top] == wanted[place].topk(2).indices.tolist()


def test_a_refused_proposal_never_ends_in_an_impossible_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where p is 1 but for rounding, nothing is left of max(p − q, 0)."""
    from ray_jobs.inference import speculation

    monkeypatch.setattr(speculation, "uniform", lambda *_: 1 - 2**-53)
    probs_kV = torch.tensor([[1 - 2**-24, 0.0, 0.0]] * 2)
    assert verified(probs_kV, Proposal((0,)), 0, 0) == [0]


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Engine(model_of(), VOCABULARY).add(PROMPT, GREEDY, 0)
