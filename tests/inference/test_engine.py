"""An answer is what the model alone writes without any cache, and what transformers' generate writes."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.decoding import Rows, drawn, penalised, probabilities, uniform
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request

VOCABULARY = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
CLASSES: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "yarn": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": YARN}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
}


def model_of(name: str = "llama") -> Any:
    """Untrained, but attending sharply and with one token clearly likeliest, so that no two sums are a tie."""
    config_class, model_class, changes = CLASSES[name]
    shape = {key: value for key, value in SHAPE.items() if name != "qwen2" or key != "head_dim"}
    torch.manual_seed(5)
    model = model_class(config_class(**shape, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    return model.eval()


def prompts(count: int, longest: int = 60, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, longest))] for _ in range(count)]


@torch.no_grad()
def written_without_cache(model: Any, prompt: Sequence[int], spec: DecodingSpec, ends: Sequence[int] = ()) -> list[int]:
    model.config._attn_implementation = "eager"
    tokens, answer = list(prompt), []
    rows = Rows.of([spec], VOCABULARY, torch.device("cpu"))
    for step in range(spec.max_new_tokens):
        logits_1V = model(torch.tensor([tokens]), use_cache=False).logits[:, -1].float()
        seen_1V = torch.zeros_like(logits_1V, dtype=torch.bool)
        seen_1V[0, tokens] = True
        probs_1V = probabilities(penalised(logits_1V, seen_1V, rows), rows)
        token = int(drawn(probs_1V, [uniform(spec.seed, step)]))
        if token in ends:
            break
        answer.append(token)
        tokens.append(token)
    return answer


SPECS = [
    DecodingSpec(temperature=0, max_new_tokens=20),
    DecodingSpec(temperature=1.0, seed=3, max_new_tokens=30),
    DecodingSpec(temperature=0.8, top_k=10, top_p=0.9, repetition_penalty=1.2, seed=9, max_new_tokens=9),
    DecodingSpec(temperature=1.3, min_p=0.1, seed=1, max_new_tokens=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CLASSES))
def test_in_any_company_an_answer_is_what_is_written_alone_without_a_cache(name: str) -> None:
    model = model_of(name)
    asked = list(zip(prompts(8), itertools.cycle(SPECS), strict=False))
    wanted = [written_without_cache(model, *one) for one in asked]
    for block_size, step_tokens in ((16, 512), (4, 10), (1, 3)):
        blocks = 1600 // block_size
        spec = EngineSpec(block_size=block_size, num_blocks=blocks, max_running=3, step_tokens=step_tokens)
        engine = Engine(model, VOCABULARY, spec=spec)
        requests = [engine.add(*one)[0] for one in asked]
        engine.run()
        assert [request.answer for request in requests] == wanted
        assert all(request.reason == "length" for request in requests)
        assert engine.blocks.num_available == blocks and engine.num_preempted == 0


@pytest.mark.parametrize("name", list(CLASSES))
def test_greedy_answers_are_those_of_transformers_generate_with_left_padding(name: str) -> None:
    model, asked = model_of(name), prompts(6)
    longest = max(map(len, asked))
    inputs_BL = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in asked])
    mask_BL = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in asked])
    model.config._attn_implementation = "sdpa"
    written_BL = model.generate(inputs_BL, attention_mask=mask_BL, max_new_tokens=25, do_sample=False)
    engine = Engine(model, VOCABULARY)
    requests = [engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=25))[0] for prompt in asked]
    engine.run()
    assert [request.answer for request in requests] == written_BL[:, longest:].tolist()


@pytest.mark.slow
def test_preempted_requests_write_what_they_would_have_written() -> None:
    model = model_of()
    asked = [(prompt, DecodingSpec(seed=place, max_new_tokens=40)) for place, prompt in enumerate(prompts(8))]
    wanted = [written_without_cache(model, *one) for one in asked]
    engine = Engine(model, VOCABULARY, spec=EngineSpec(block_size=4, num_blocks=40, max_running=8, step_tokens=32))
    requests = [engine.add(*one)[0] for one in asked]
    engine.run()
    assert engine.num_preempted > 0
    assert [request.answer for request in requests] == wanted
    assert engine.blocks.num_available == 40


def test_a_prompt_that_stands_is_not_computed_again_and_answered_alike() -> None:
    model, spec = model_of(), DecodingSpec(seed=2, max_new_tokens=12)
    prompt = prompts(1, 60, seed=4)[0] * 3
    engine = Engine(model, VOCABULARY, spec=EngineSpec(block_size=8))
    (miss,) = engine.add(prompt, spec)
    engine.run()
    (hit,) = engine.add(prompt, spec)
    engine.step()
    assert hit.table.length == len(prompt) and len(hit.answer) == 1
    engine.run()
    assert hit.answer == miss.answer == written_without_cache(model, prompt, spec)


def test_several_answers_share_their_prompt_and_are_those_of_requests_alone() -> None:
    model, spec = model_of(), DecodingSpec(temperature=1.2, seed=100, max_new_tokens=15)
    prompt = prompts(1, 60, seed=1)[0] + [3] * 9
    engine = Engine(model, VOCABULARY, spec=EngineSpec(block_size=8))
    answers = engine.add(prompt, spec, num_answers=4)
    engine.step()
    held = {block for answer in answers for block in answer.table.blocks}
    assert len(held) == engine.blocks.blocks_for(len(prompt))
    engine.run()
    for number, answer in enumerate(answers):
        alone = spec.model_copy(update={"seed": 100 + number})
        assert answer.answer == written_without_cache(model, prompt, alone)
    assert len({tuple(answer.answer) for answer in answers}) == 4
    assert engine.blocks.num_available == engine.blocks.num_blocks


def test_an_answer_ends_at_an_end_token_and_before_a_stop_text() -> None:
    model, prompt = model_of(), prompts(1, seed=3)[0]
    free = written_without_cache(model, prompt, DecodingSpec(temperature=0, max_new_tokens=20))
    engine = Engine(model, VOCABULARY, [free[6]], lambda tokens: " ".join(map(str, tokens)))
    (ended,) = engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=20))
    engine.run()
    first = free.index(free[6])
    assert (ended.answer, ended.reason, ended.text) == (free[:first], "stop", None)
    engine = Engine(model, VOCABULARY, decode=lambda tokens: " ".join(map(str, tokens)))
    stop = f"{free[2]} {free[3]}"
    (stopped,) = engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=20, stop=("never", stop)))
    engine.run()
    assert stopped.reason == "stop"
    assert stopped.text is not None and stop not in stopped.text
    assert f"{stopped.text}{stop}" == " ".join(map(str, stopped.answer))


@pytest.mark.slow
def test_requests_that_come_and_are_cancelled_at_any_step_leave_no_block_behind() -> None:
    model, chance = model_of(), random.Random(0)
    engine = Engine(model, VOCABULARY, spec=EngineSpec(block_size=4, num_blocks=40, max_running=6, step_tokens=24))
    begun: list[Request] = []
    for _ in range(300):
        if chance.random() < 0.4:
            spec = DecodingSpec(seed=chance.randrange(99), max_new_tokens=chance.randrange(1, 30))
            begun += engine.add(prompts(1, 40, chance.randrange(20))[0], spec, chance.choice([1, 1, 1, 3]))
        if begun and chance.random() < 0.2:
            engine.cancel(chance.choice(begun))
        engine.step()
    engine.run()
    assert all(request.reason is not None for request in begun)
    assert engine.blocks.num_available == 40
    assert engine.num_preempted > 0 and any(request.reason == "cancelled" for request in begun)
    complete = [request for request in begun if request.reason == "length"]
    for request in complete[::10]:
        assert request.answer == written_without_cache(model, request.prompt, request.spec)


@pytest.mark.parametrize(
    ("prompt", "new", "said"),
    [
        ([], 5, "prompt is empty: give"),
        ([1, VOCABULARY], 5, "outside the vocabulary of 97"),
        ([-1], 5, "outside the vocabulary"),
        ([1] * 250, 7, "more than the model's context of 256: shorten"),
        ([1] * 60, 9, "do not fit 5 blocks of 16: raise"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(prompt: list[int], new: int, said: str) -> None:
    engine = Engine(model_of(), VOCABULARY, spec=EngineSpec(block_size=16, num_blocks=5))
    with pytest.raises(ValueError, match=said):
        engine.add(prompt, DecodingSpec(max_new_tokens=new))


def test_models_that_cannot_be_served_so_are_refused() -> None:
    model = model_of()
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ValueError, match="choose yarn or linear"):
        Engine(model, VOCABULARY)
