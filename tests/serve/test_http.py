"""What a client gets from the server over HTTP, whatever it asks."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.inference import DecodingSpec, EngineSpec
from configs.serve import LimitsSpec
from ray_jobs.inference.engine import Engine
from tests.serve.tiny import CONTEXT, Serving, serving, write_model


def post(server: Serving, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{path}", json={"model": "tiny", **body}, timeout=60)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def alone(server: Serving, prompt: list[int], **spec: Any) -> list[int]:
    """What an engine of its own writes."""
    loaded = server.service.loaded
    engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens)
    (request,) = engine.add(prompt, DecodingSpec(**spec))
    engine.run()
    return request.answer


def test_an_answer_is_the_text_of_the_engines_tokens(tiny_server: Serving) -> None:
    prompt = tiny_server.service.loaded.encode("the mill wheel")
    answered = post(tiny_server, "completions", prompt="the mill wheel", max_tokens=30, temperature=0).json()
    wanted = alone(tiny_server, prompt, temperature=0, max_new_tokens=30)
    assert answered["choices"][0]["text"] == tiny_server.service.loaded.tokenizer.decode(wanted)
    assert answered["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(wanted),
        "total_tokens": len(prompt) + len(wanted),
    }


@pytest.mark.parametrize("stop", [None, "e", ["q", "€", "ab"]])
@pytest.mark.parametrize("n", [1, 3])
def test_a_streams_pieces_are_the_whole_answer(tiny_server: Serving, stop: Any, n: int) -> None:
    body = {"prompt": ["the water", "10 €"], "n": n, "max_tokens": 40, "seed": 7, "temperature": 1.5, "stop": stop}
    whole = post(tiny_server, "completions", **body).json()
    sent = events(post(tiny_server, "completions", **body, stream=True, stream_options={"include_usage": True}))
    assert sent[-1]["choices"] == [] and sent[-1]["usage"] == whole["usage"]
    assert len(whole["choices"]) == 2 * n
    for choice in whole["choices"]:
        pieces = [one["choices"][0] for one in sent[:-1] if one["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == [choice["finish_reason"]]


def test_the_same_seed_writes_the_same_and_none_writes_anew(tiny_server: Serving) -> None:
    def written(**more: Any) -> str:
        answer = post(tiny_server, "completions", prompt="a", max_tokens=40, temperature=2, **more)
        return str(answer.json()["choices"][0]["text"])

    assert written(seed=3) == written(seed=3)
    assert written() != written()


def test_token_ids_and_texts_are_the_same_prompt_and_echo_gives_it_back(tiny_server: Serving) -> None:
    tokens = tiny_server.service.loaded.encode("a b c")
    body = {"max_tokens": 8, "temperature": 0, "echo": True}
    texts = [post(tiny_server, "completions", prompt=prompt, **body) for prompt in ("a b c", tokens, [tokens])]
    assert len({answer.json()["choices"][0]["text"] for answer in texts}) == 1
    assert texts[0].json()["choices"][0]["text"].startswith("a b c")


REFUSED: list[tuple[str, dict[str, Any], int, str | None, str | None]] = [
    ("completions", {"prompt": ""}, 400, "prompt", None),
    ("completions", {"prompt": []}, 400, "prompt", "invalid_value"),
    ("completions", {"prompt": [[]]}, 400, "prompt", None),
    ("completions", {"prompt": [1, "a"]}, 400, "prompt", "invalid_value"),
    ("completions", {"prompt": [5, 320]}, 400, "prompt", None),
    ("completions", {"prompt": [-1]}, 400, "prompt", None),
    ("completions", {}, 400, "prompt", "invalid_value"),
    ("completions", {"prompt": [5] * CONTEXT}, 400, "prompt", "context_length_exceeded"),
    ("completions", {"prompt": [5] * 200, "max_tokens": 57}, 400, "max_tokens", "context_length_exceeded"),
    ("completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "invalid_value"),
    ("completions", {"prompt": "a", "model": "gpt-4"}, 404, "model", "model_not_found"),
    ("completions", {"prompt": "a", "n": 65}, 400, "n", None),
    ("completions", {"prompt": "a", "temperature": -1}, 400, "temperature", "invalid_value"),
    ("completions", {"prompt": "a", "stop": ""}, 400, "stop", "invalid_value"),
    ("completions", {"prompt": "a", "frequency_penalty": 0.5}, 400, "frequency_penalty", "invalid_value"),
    ("completions", {"prompt": "a", "max_token": 5}, 400, "max_token", "unknown_parameter"),
    ("completions", {"prompt": "a", "echo": True, "logprobs": 1}, 400, "echo", None),
    ("chat/completions", {"messages": []}, 400, "messages", "invalid_value"),
    ("chat/completions", {"messages": [{"role": "robot", "content": "a"}]}, 400, "messages", "invalid_value"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "a " * CONTEXT}]},
        400,
        "messages",
        "context_length_exceeded",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 3},
        400,
        "top_logprobs",
        None,
    ),
    ("embeddings", {"input": "a"}, 404, None, None),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "code"), REFUSED)
def test_what_cannot_be_answered_is_refused_in_openais_form(
    tiny_server: Serving, path: str, body: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    answered = post(tiny_server, path, **body)
    error = answered.json()["error"]
    assert (answered.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["message"] and error["type"] == "invalid_request_error"


def test_a_body_that_is_no_json_or_too_large_is_refused(tiny_model: Path) -> None:
    with serving(tiny_model, limits=LimitsSpec(max_body_bytes=2000)) as server:
        url = f"{server.url}/v1/completions"
        assert httpx.post(url, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        large = {"model": "tiny", "prompt": "a" * 3000}
        told = httpx.post(url, json=large)
        untold = httpx.post(
            url,
            content=(part.encode() for part in json.dumps(large).split(" ")),
            headers={"Content-Type": "application/json"},
        )
        assert told.status_code == untold.status_code == 413
        assert told.json() == untold.json()


def test_a_model_without_a_form_for_conversations_says_so(tmp_path: Path) -> None:
    with serving(write_model(tmp_path, chat=False)) as server:
        answered = post(server, "chat/completions", messages=[{"role": "user", "content": "hello"}])
        assert answered.status_code == 400
        assert "base model" in answered.json()["error"]["message"]
        assert post(server, "completions", prompt="hello").status_code == 200


def test_only_who_has_a_key_is_answered(tiny_model: Path) -> None:
    with serving(tiny_model, keys=["first", "second"]) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first"}, {"Authorization": "Bearer"}):
            answered = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert answered.status_code == 401
            assert answered.json()["error"]["code"] == "invalid_api_key"
        for key in ("first", "second"):
            assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_client_that_leaves_frees_its_blocks(tiny_model: Path) -> None:
    body = {"model": "tiny", "prompt": "the", "max_tokens": 250, "n": 60, "seed": 5}
    with serving(tiny_model, engine=EngineSpec(num_blocks=2000), endless=True) as server:
        url, answers = f"{server.url}/v1/completions", server.service.loop.metrics.answers
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as answer:
            next(answer.iter_lines())
            assert server.blocks_in_use > 0
        server.wait_until_idle()
        assert answers.labels("cancelled")._value.get() == 60
        with pytest.raises(httpx.ReadTimeout):  # one that waits for the whole
            httpx.post(url, json=body, timeout=0.3)
        server.wait_until_idle()
        assert answers.labels("cancelled")._value.get() == 120


@pytest.mark.slow
def test_a_thousand_requests_at_once_are_answered_or_told_to_come_back(tiny_model: Path) -> None:
    engine = EngineSpec(block_size=4, num_blocks=40, max_running=16, step_tokens=64)
    with serving(tiny_model, engine, LimitsSpec(max_queued=200)) as server:

        async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
            body = {"model": "tiny", "prompt": f"{number} the", "max_tokens": 4 + number % 20, "seed": number}
            return await client.post(f"{server.url}/v1/completions", json=body)

        async def ask_all() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(timeout=120, limits=limits) as client:
                return await asyncio.gather(*(ask(client, number) for number in range(1000)))

        answers = asyncio.run(ask_all())
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert len(answers) - len(refused) >= server.service.loop.max_open
        assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
        assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
        server.wait_until_idle()
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_metrics_count_what_was_asked_and_written(tiny_model: Path) -> None:
    with serving(tiny_model) as server:
        written = post(server, "completions", prompt="a b", max_tokens=9, n=2, seed=1).json()["usage"]
        post(server, "completions", prompt="")
        told = httpx.get(f"{server.url}/metrics")
        assert told.headers["Content-Type"].startswith("text/plain")
        numbers = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if not line.startswith("#"))
        assert float(numbers["headrace_prompt_tokens_total"]) == written["prompt_tokens"]
        assert float(numbers["headrace_written_tokens_total"]) == written["completion_tokens"]
        assert float(numbers['headrace_requests_total{path="/v1/completions",status="200"}']) == 1
        assert float(numbers['headrace_requests_total{path="/v1/completions",status="400"}']) == 1
        assert float(numbers["headrace_time_to_first_token_seconds_count"]) == 2
        assert float(numbers["headrace_blocks"]) == 256 and float(numbers["headrace_blocks_in_use"]) == 0
        assert float(numbers["headrace_preemptions_total"]) == 0


def test_an_engine_that_fails_is_told_of_and_nobody_waits_for_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda *arguments: None)
    with serving(tiny_model) as server:

        def fail() -> list[Any]:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(server.service.loop.engine, "step", fail)
        for _ in range(2):
            answered = post(server, "completions", prompt="a")
            assert (answered.status_code, answered.json()["error"]["code"]) == (503, "engine_stopped")
        assert httpx.get(f"{server.url}/health").status_code == 503


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_server_of_its_own_process_ends_when_it_is_told_to(tiny_model: Path, sign: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = json.dumps({"model": str(tiny_model), "device": "cpu", "port": port})
    server = subprocess.Popen([sys.executable, "-m", "ray_jobs.serve", "http", spec], env={**os.environ})
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.1)
        server.send_signal(sign)
        assert server.wait(20) in {0, -sign}
    finally:
        server.kill()
