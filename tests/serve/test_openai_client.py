"""OpenAI's own client reads what the server says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.inference import DecodingSpec
from ray_jobs.inference.engine import Engine
from tests.serve.tiny import Serving, serving

openai = pytest.importorskip("openai", reason="needs OpenAI's client: pip install openai")
pytestmark = pytest.mark.clients

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "the mill"}]},
]


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[Serving]:
    with serving(tiny_model, keys=["secret"]) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Serving) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)


def test_the_model_is_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_completion_and_its_stream_are_the_engines_answer(client: Any, server: Serving) -> None:
    loaded = server.service.loaded
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
    requests = engine.add(loaded.encode("the water"), DecodingSpec(seed=11, max_new_tokens=30, top_k=20), num_answers=2)
    engine.run()
    asked = {"model": "tiny", "prompt": "the water", "max_tokens": 30, "n": 2, "seed": 11, "extra_body": {"top_k": 20}}
    whole = client.completions.create(**asked)
    assert [choice.text for choice in whole.choices] == [loaded.tokenizer.decode(one.answer) for one in requests]
    assert [choice.finish_reason for choice in whole.choices] == [one.reason for one in requests]
    assert whole.usage.completion_tokens == sum(len(one.answer) for one in requests)
    texts = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_a_conversation_is_rendered_by_the_models_form_and_answered(client: Any, server: Serving) -> None:
    loaded = server.service.loaded
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe mill<|im_end|>\n<|im_start|>assistant\n"
    prompt = loaded.tokenizer.encode(rendered)
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
    (request,) = engine.add(prompt, DecodingSpec(temperature=0, max_new_tokens=20))
    engine.run()
    asked = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_completion_tokens": 20}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content == loaded.tokenizer.decode(request.answer)
    assert whole.usage.prompt_tokens == len(prompt)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    said = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(choice.delta.content or "" for choice in said) == whole.choices[0].message.content
    assert said[-1].finish_reason == whole.choices[0].finish_reason


def test_a_turn_ends_where_the_models_form_ends_it(server: Serving) -> None:
    tokenizer: Any = server.service.loaded.tokenizer
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in server.service.loaded.end_tokens


def test_log_probabilities_are_those_of_the_models_distribution(client: Any, server: Serving) -> None:
    import torch

    loaded = server.service.loaded
    prompt = loaded.encode("größer")
    asked = {"prompt": prompt, "max_tokens": 12, "seed": 4, "temperature": 1.3, "extra_body": {"top_k": 5}}
    whole = client.completions.create(model="tiny", **asked, logprobs=3).choices[0]
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
    (request,) = engine.add(prompt, DecodingSpec(seed=4, temperature=1.3, top_k=5, max_new_tokens=12))
    engine.run()
    loaded.model.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            logits_LV = loaded.model(torch.tensor([[*prompt, *request.answer]])).logits[0, len(prompt) - 1 : -1]
    finally:
        loaded.model.config._attn_implementation = "headrace-paged"
    wanted_LV = logits_LV[:, : loaded.num_tokens].float().log_softmax(dim=1)
    given = wanted_LV.gather(1, torch.tensor(request.answer).unsqueeze(1)).squeeze(1)
    assert whole.logprobs.token_logprobs == pytest.approx(given.tolist(), abs=1e-4)
    for top, row_V in zip(whole.logprobs.top_logprobs, wanted_LV, strict=True):
        assert sorted(top.values(), reverse=True) == pytest.approx(row_V.topk(3).values.tolist(), abs=1e-4)
    offsets = whole.logprobs.text_offset
    assert offsets[0] == 0 and offsets == sorted(offsets) and offsets[-1] <= len(whole.text)

    turn = {"messages": MESSAGES, "max_tokens": 12, "seed": 4, "logprobs": True, "top_logprobs": 2}
    choice = client.chat.completions.create(model="tiny", **turn).choices[0]
    written = b"".join(bytes(one.bytes) for one in choice.logprobs.content)
    assert written.decode(errors="replace") == choice.message.content
    assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)
    chunks = list(client.chat.completions.create(model="tiny", **turn, stream=True))
    streamed = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert streamed == choice.logprobs.content


def test_errors_are_the_clients_own(client: Any, server: Serving) -> None:
    with pytest.raises(openai.NotFoundError, match="ask for 'tiny'") as unknown:
        client.completions.create(model="other", prompt="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt=[5] * 300)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guessed", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_stream_that_is_closed_frees_its_blocks(tiny_model: Path) -> None:
    with serving(tiny_model, endless=True) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
        with client.completions.create(model="tiny", prompt="the", max_tokens=250, n=8, stream=True) as stream:
            next(iter(stream))
        server.wait_until_idle()
        assert server.service.loop.metrics.answers.labels("cancelled")._value.get() == 8


def test_a_client_that_is_refused_for_now_comes_back_and_is_answered(tiny_model: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from configs.inference import EngineSpec
    from configs.serve import LimitsSpec

    with serving(
        tiny_model, EngineSpec(max_running=2, num_blocks=64), LimitsSpec(max_queued=2), endless=True
    ) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=8)
        with ThreadPoolExecutor(12) as pool:
            answers = list(
                pool.map(
                    lambda seed: client.completions.create(model="tiny", prompt="a", max_tokens=20, seed=seed),
                    range(12),
                )
            )
        assert all(answer.usage.completion_tokens == 20 for answer in answers)
