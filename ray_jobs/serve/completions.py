"""POST /v1/completions: texts behind texts."""

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_jobs.serve.errors import bad_request
from ray_jobs.serve.loop import Piece, WrittenToken
from ray_jobs.serve.protocol import CompletionRequest
from ray_jobs.serve.service import EventStream, Service, events, new_id, whole
from ray_jobs.serve.token_text import TokenTexts

DEFAULT_TOKENS = 16  # OpenAI's
OBJECT = "text_completion"


async def complete(service: Service, request: Request, asked: CompletionRequest) -> Response:
    service.check_model(asked.model)
    if asked.echo and asked.logprobs is not None:
        raise bad_request("log-probabilities of the prompt are not computed: leave out echo or logprobs", "echo")
    prompts = _prompts(service, asked)
    room = service.room(prompts, asked.n, asked.max_tokens, "max_tokens", DEFAULT_TOKENS)
    echoes = _echoes(service, asked, prompts)
    answers = service.ask(prompts, asked.spec(room, asked.logprobs), asked.n, as_written=bool(asked.stream))
    head = {"id": new_id("cmpl"), "object": OBJECT, "created": int(time.time()), "model": service.name}

    def choice(index: int, text: str, tokens: Sequence[WrittenToken], reason: str | None) -> dict[str, Any]:
        logprobs = None if asked.logprobs is None else logprobs_of(service.texts, tokens, asked.logprobs)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    if asked.stream:
        usage = {"usage": None} if asked.include_usage else {}
        begun: set[int] = set()

        def chunks(piece: Piece) -> list[dict[str, Any]]:
            text = piece.text if piece.index in begun else echoes[piece.index // asked.n] + piece.text
            begun.add(piece.index)
            return [{**head, "choices": [choice(piece.index, text, piece.tokens, piece.reason)], **usage}]

        def last(num_written: int) -> dict[str, Any] | None:
            if not asked.include_usage:
                return None
            return {**head, "choices": [], "usage": service.usage(prompts, num_written)}

        return EventStream(answers, events(answers, chunks, last))
    found = await whole(request, answers)
    choices = [
        choice(index, echoes[index // asked.n] + answer.text, answer.tokens, answer.reason)
        for index, answer in enumerate(found)
    ]
    num_written = sum(answer.num_tokens for answer in found)
    return JSONResponse({**head, "choices": choices, "usage": service.usage(prompts, num_written)})


def _prompts(service: Service, asked: CompletionRequest) -> list[list[int]]:
    if "" in asked.prompt:
        raise bad_request("the prompt is empty: give a text, or at least one token", "prompt")
    return [service.loaded.encode(one) if isinstance(one, str) else one for one in asked.prompt]


def _echoes(service: Service, asked: CompletionRequest, prompts: list[list[int]]) -> list[str]:
    """What stands before each prompt's answers."""
    if not asked.echo:
        return [""] * len(prompts)
    return [
        one if isinstance(one, str) else service.loop.decode(prompt)
        for one, prompt in zip(asked.prompt, prompts, strict=True)
    ]


def logprobs_of(texts: TokenTexts, tokens: Sequence[WrittenToken], num_top: int) -> dict[str, Any]:
    """In the form of this endpoint."""
    known = [token.logprobs for token in tokens if token.logprobs is not None]
    return {
        "tokens": [texts.text_of(one.token) for one in known],
        "token_logprobs": [one.logprob for one in known],
        "top_logprobs": [{texts.text_of(token): value for token, value in one.top[:num_top]} for one in known],
        "text_offset": [token.offset for token in tokens],
    }
