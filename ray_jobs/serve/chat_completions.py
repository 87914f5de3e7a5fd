"""POST /v1/chat/completions: the assistant's next turn of a conversation."""

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_jobs.serve.errors import bad_request
from ray_jobs.serve.loop import Piece, WrittenToken
from ray_jobs.serve.protocol import ChatRequest
from ray_jobs.serve.service import EventStream, Service, events, new_id, whole
from ray_jobs.serve.token_text import TokenTexts


async def converse(service: Service, request: Request, asked: ChatRequest) -> Response:
    service.check_model(asked.model)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise bad_request("top_logprobs needs logprobs: set it to true", "top_logprobs")
    try:
        prompt = service.loaded.encode_chat([message.for_template() for message in asked.messages])
    except ValueError as error:
        at = "/v1/completions" if service.loaded.is_base else "the messages"
        raise bad_request(f"{error}: see {at}", "messages") from error
    param = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
    room = service.room([prompt], asked.n, asked.max_completion_tokens or asked.max_tokens, param, None)
    num_top = (asked.top_logprobs or 0) if asked.logprobs else None
    answers = service.ask([prompt], asked.spec(room, num_top), asked.n, as_written=bool(asked.stream))
    head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": service.name}

    def logprobs(tokens: Sequence[WrittenToken]) -> dict[str, Any] | None:
        return None if num_top is None else logprobs_of(service.texts, tokens, num_top)

    if asked.stream:
        head["object"] = "chat.completion.chunk"
        usage = {"usage": None} if asked.include_usage else {}
        begun: set[int] = set()

        def chunk(index: int, delta: dict[str, str], rest: dict[str, Any]) -> dict[str, Any]:
            return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None, **rest}], **usage}

        def chunks(piece: Piece) -> list[dict[str, Any]]:
            found = []
            if piece.index not in begun:
                begun.add(piece.index)
                found.append(chunk(piece.index, {"role": "assistant", "content": ""}, {"logprobs": None}))
            if piece.text or piece.tokens:
                found.append(chunk(piece.index, {"content": piece.text}, {"logprobs": logprobs(piece.tokens)}))
            if piece.reason is not None:
                found.append(chunk(piece.index, {}, {"logprobs": None, "finish_reason": piece.reason}))
            return found

        def last(num_written: int) -> dict[str, Any] | None:
            if not asked.include_usage:
                return None
            return {**head, "choices": [], "usage": service.usage([prompt], num_written)}

        return EventStream(answers, events(answers, chunks, last))
    head["object"] = "chat.completion"
    found = await whole(request, answers)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs(answer.tokens),
            "finish_reason": answer.reason,
        }
        for index, answer in enumerate(found)
    ]
    num_written = sum(answer.num_tokens for answer in found)
    return JSONResponse({**head, "choices": choices, "usage": service.usage([prompt], num_written)})


def logprobs_of(texts: TokenTexts, tokens: Sequence[WrittenToken], num_top: int) -> dict[str, Any]:
    """In the form of this endpoint."""

    def said(token: int, logprob: float) -> dict[str, Any]:
        written = texts.bytes_of(token)
        return {"token": written.decode(errors="replace"), "logprob": logprob, "bytes": list(written)}

    content = [
        {
            **said(one.logprobs.token, one.logprobs.logprob),
            "top_logprobs": [said(*top) for top in one.logprobs.top[:num_top]],
        }
        for one in tokens
        if one.logprobs is not None
    ]
    return {"content": content, "refusal": None}
