"""The HTTP application: routes, who may ask, and what is refused. OpenAI's clients speak to it."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_jobs.serve.api_keys import ApiKeys
from ray_jobs.serve.chat_completions import converse
from ray_jobs.serve.completions import complete
from ray_jobs.serve.errors import ApiError, bad_request, too_large, unavailable, unknown_model, wrong_key
from ray_jobs.serve.metrics import Metrics
from ray_jobs.serve.protocol import ChatRequest, CompletionRequest
from ray_jobs.serve.service import ClientGone, Service

GUARDED = "/v1/"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus' text format
CLIENT_GONE = 499  # as nginx writes it into its log; nobody receives it


def make_app(
    service: Service, keys: ApiKeys, metrics: Metrics, all_numbers: Callable[[], Awaitable[bytes]] | None = None
) -> FastAPI:
    """The application. It starts the engine's thread with itself, and ends it.

    Args:
        metrics: counted here.
        all_numbers: what /metrics says, where there are other replicas.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.loop.start()
        yield
        service.loop.stop()

    # The pages for reading the schema load scripts from elsewhere.
    app = FastAPI(title="Headrace", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.metrics = service, metrics
    paths = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics"}
    app.add_middleware(Guard, keys=keys, max_body_bytes=service.limits.max_body_bytes)
    app.add_middleware(Count, metrics=metrics, paths=paths)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(ClientGone, lambda request, error: Response(status_code=CLIENT_GONE))
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_exception_handler(HTTPException, _not_here)
    app.add_exception_handler(Exception, _failed)

    @app.post("/v1/completions")
    async def completions(request: Request, asked: CompletionRequest) -> Response:
        return await complete(service, request, asked)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, asked: ChatRequest) -> Response:
        return await converse(service, request, asked)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.name:
            raise unknown_model(name, service.name)
        return _model(service)

    @app.get("/health")
    async def health() -> dict[str, str]:
        if service.loop.stopped:
            raise unavailable("the engine has stopped: look at the server's log, and start it again")
        if not service.loop.warm:
            raise unavailable("the engine is starting: ask again in a while")
        return {"status": "ok", "model": service.name}

    @app.get("/metrics")
    async def numbers() -> Response:
        text = metrics.text() if all_numbers is None else await all_numbers()
        return Response(text, media_type=METRICS_TYPE)

    return app


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.name,
        "object": "model",
        "created": service.started,
        "owned_by": "headrace",
        "max_model_len": service.loaded.context,
    }


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _misread(request: Request, error: Exception) -> Response:
    """pydantic's account of a request, in OpenAI's form: the first field that is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    places = [str(place) for place in first["loc"] if place != "body"]
    if first["type"] == "json_invalid":
        return bad_request("the body is not JSON", None).response()
    param = places[0] if places else None
    where = ".".join(places) or "the body"
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return bad_request(f"{where} is not known here: leave it out", param, "unknown_parameter").response()
    return bad_request(f"{where}: {said[:1].lower()}{said[1:]}", param, "invalid_value").response()


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ApiError):  # raised where the body is read
        return error.__cause__.response()
    said = f"{request.method} {request.url.path}: {error.detail}"
    return ApiError(error.status_code, said, headers=dict(error.headers or {})).response()


async def _failed(request: Request, error: Exception) -> Response:
    """A mistake of ours; the server's log has the trace."""
    return ApiError(500, "the server failed: its log says how", type="server_error").response()


class Guard:
    """Lets in whoever has a key, and bodies that are not too large."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, max_body_bytes: int):
        self._app, self._keys, self._most = app, keys, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        authorization = headers.get("authorization")
        if scope["path"].startswith(GUARDED) and not self._keys.allows(authorization):
            await wrong_key(authorization is not None).response()(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            await too_large(self._most).response()(scope, receive, send)
            return
        num_received = 0

        async def counted() -> Message:
            nonlocal num_received
            message = await receive()
            num_received += len(message.get("body", b""))
            if num_received > self._most:  # sent in chunks, without saying how many
                raise too_large(self._most)
            return message

        await self._app(scope, counted, send)


class Count:
    """Requests by path and status, and how long they took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]):
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        begun, status = time.monotonic(), CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(time.monotonic() - begun)
