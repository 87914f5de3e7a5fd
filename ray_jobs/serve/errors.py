"""Refusals in the form of OpenAI's API."""

from typing import Any

from fastapi.responses import JSONResponse


class ApiError(Exception):
    """What a client is told instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def bad_request(message: str, param: str | None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param, code)


def unknown_model(asked: str, served: str) -> ApiError:
    return ApiError(404, f"the model {asked!r} is not served here: ask for {served!r}", "model", "model_not_found")


def wrong_key(given: bool) -> ApiError:
    said = "the API key is not one of this server's" if given else "this server asks for an API key"
    return ApiError(
        401,
        f"{said}: send the header Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def queue_full(message: str, retry_seconds: int) -> ApiError:
    return ApiError(
        429, message, code="rate_limit_exceeded", type="requests", headers={"Retry-After": str(retry_seconds)}
    )


def unavailable(message: str) -> ApiError:
    return ApiError(503, message, type="server_error", code="engine_stopped")


def too_large(most: int) -> ApiError:
    return ApiError(413, f"the request is larger than {most} bytes: send a shorter one", code="request_too_large")
