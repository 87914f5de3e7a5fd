"""A served model, as the requests of the API use it: checks before anything is computed, then answers."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from configs.inference import DecodingSpec
from configs.serve import LimitsSpec
from ray_jobs.inference.loading import Loaded
from ray_jobs.serve.errors import bad_request, queue_full, unavailable, unknown_model
from ray_jobs.serve.loop import Answers, EngineLoop, EngineStopped, Piece, QueueFull, Reason, WrittenToken
from ray_jobs.serve.token_text import TokenTexts

CONTEXT_EXCEEDED = "context_length_exceeded"


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


@dataclass
class WholeAnswer:
    """An answer that is over."""

    text: str = ""
    tokens: list[WrittenToken] = field(default_factory=list)
    reason: Reason | None = None
    num_tokens: int = 0


class Service:
    """What all requests share."""

    def __init__(self, loaded: Loaded, loop: EngineLoop, limits: LimitsSpec, name: str | None = None):
        self.loaded, self.loop, self.limits = loaded, loop, limits
        self.name = name or loaded.name
        self.started = int(time.time())
        self.texts = TokenTexts(loaded.tokenizer)

    def check_model(self, asked: str) -> None:
        if asked != self.name:
            raise unknown_model(asked, self.name)

    def room(
        self, prompts: Sequence[Sequence[int]], num_answers: int, wanted: int | None, param: str, default: int | None
    ) -> int:
        """How many tokens each answer may have.

        Args:
            wanted: what the request says, in its field `param`.
            default: what holds where it does not, as far as there is room; None is all that there is.

        Raises:
            ApiError: prompts and answers do not fit the model, the memory or the limits.
        """
        self._check_prompts(prompts)
        asked = len(prompts) * num_answers
        most = min(self.limits.max_answers, self.loop.max_open)
        if asked > most:
            raise bad_request(f"{asked} answers are more than the {most} that one request can have: lower n", "n")
        longest = max(map(len, prompts))
        context, limit = self.loaded.context, self.limits.max_tokens
        blocks = self.loop.engine.blocks
        memory = (blocks.num_blocks - 1) * blocks.block_size  # the engine leaves one for a copy
        left = min(context, memory) - longest
        if left < 1:
            raise bad_request(
                f"the prompt has {longest} tokens, and prompt and answer together {min(context, memory)} at the most: "
                "shorten it",
                "messages" if default is None else "prompt",
                CONTEXT_EXCEEDED,
            )
        if wanted is None:
            return min(left, limit or left, default or left)
        if limit is not None and wanted > limit:
            raise bad_request(f"{param} ({wanted}) is more than this server's limit of {limit}: lower it", param)
        if wanted > left:
            raise bad_request(
                f"a prompt of {longest} tokens leaves room for {left}, less than {param} ({wanted}): lower it, or "
                "shorten the prompt",
                param,
                CONTEXT_EXCEEDED,
            )
        return wanted

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        num_tokens = self.loaded.num_tokens
        for prompt in prompts:
            if not prompt:
                raise bad_request("the prompt is empty: give at least one token", "prompt")
            if not all(0 <= token < num_tokens for token in prompt):
                raise bad_request(f"the prompt holds a token id outside 0 … {num_tokens - 1}", "prompt")

    def ask(self, prompts: Sequence[Sequence[int]], spec: DecodingSpec, num_answers: int, as_written: bool) -> Answers:
        """Raises ApiError where too much is asked at once, or the engine is gone."""
        try:
            return self.loop.submit(prompts, spec, num_answers, as_written)
        except QueueFull as error:
            raise queue_full(str(error), error.retry_seconds) from error
        except EngineStopped as error:
            raise unavailable(str(error)) from error

    def usage(self, prompts: Sequence[Sequence[int]], num_written: int) -> dict[str, int]:
        num_given = sum(map(len, prompts))
        return {
            "prompt_tokens": num_given,
            "completion_tokens": num_written,
            "total_tokens": num_given + num_written,
        }


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


async def whole(request: Request, answers: Answers) -> list[WholeAnswer]:
    """All answers once they are over.

    Raises:
        ClientGone: the client went away; the answers are cancelled.
        ApiError: the engine stopped, or took the prompt for none.
    """
    reading = asyncio.create_task(_read(answers))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise ClientGone
        return reading.result()
    except ValueError as error:
        raise bad_request(str(error), None) from error
    except EngineStopped as error:
        raise unavailable(str(error)) from error
    finally:
        answers.cancel()
        for task in (reading, leaving):
            task.cancel()


async def _read(answers: Answers) -> list[WholeAnswer]:
    found = [WholeAnswer() for _ in range(len(answers.prompts) * answers.num_answers)]
    async for piece in answers:
        answer = found[piece.index]
        answer.text += piece.text
        answer.tokens += piece.tokens
        answer.reason, answer.num_tokens = piece.reason, piece.num_tokens
    return found


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events of some answers, which end with the connection, however that ends."""

    def __init__(self, answers: Answers, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.cancel()


async def events(
    answers: Answers, chunks: Callable[[Piece], list[dict[str, Any]]], last: Callable[[int], dict[str, Any] | None]
) -> AsyncIterator[str]:
    """What an `EventStream` sends.

    Args:
        chunks: of a piece.
        last: what comes behind all of them, of the number of tokens that were written.
    """
    written: dict[int, int] = {}
    try:
        async for piece in answers:
            written[piece.index] = piece.num_tokens
            for chunk in chunks(piece):
                yield _event(chunk)
    except (ValueError, EngineStopped) as error:  # the status is sent already
        yield _event(unavailable(str(error)).body)
        return
    closing = last(sum(written.values()))
    if closing is not None:
        yield _event(closing)
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
