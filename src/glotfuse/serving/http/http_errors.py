"""Errors in the shape that OpenAI's API gives them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glotfuse.errors import GlotfuseError
from glotfuse.serving.engine import OverloadedError, UnavailableError
from glotfuse.serving.http.schemas import UnsupportedFieldError

logger = logging.getLogger(__name__)

_MOST_CHARS = 500
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
CLIENT_GONE = 499
"""Status of requests whose client went away, for logs and metrics; nobody reads it."""


class HttpError(Exception):
    """Answers a request with an error.

    Args:
        status: HTTP status.
        message: What was expected, what was found, what to do.
        code: For programs.
        param: The field that is to blame.
        headers: More headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def as_http_error(error: BaseException) -> HttpError:
    """The error that a client is shown; what is not the client's matter goes to the log."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, UnsupportedFieldError):
        message = f"{error.field!r} with this value is not supported here. Leave it out."
        return HttpError(400, message, code="unsupported_parameter", param=error.field)
    if isinstance(error, RequestValidationError):
        return _validation_error(error)
    if isinstance(error, OverloadedError):
        headers = {"Retry-After": str(error.retry_after)}
        return HttpError(429, str(error), code="overloaded", headers=headers)
    if isinstance(error, UnavailableError):
        return HttpError(503, str(error), code="unavailable", headers={"Retry-After": "5"})
    if isinstance(error, GlotfuseError):
        return HttpError(400, _short(str(error)), code="invalid_input")
    if isinstance(error, TimeoutError):
        return HttpError(504, "The answer took longer than the server allows. Ask for fewer tokens.", code="timeout")
    logger.error("A request failed", exc_info=error)
    return HttpError(500, "The server failed to answer; its log says why.", code="internal_error")


def add_handlers(app: FastAPI) -> None:
    """Gives every error of an app this shape."""

    async def handle(_: Request, error: Exception) -> JSONResponse:
        return as_http_error(error).response()

    for kind in (HttpError, GlotfuseError, UnsupportedFieldError, RequestValidationError, TimeoutError, Exception):
        app.add_exception_handler(kind, handle)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        what = {
            404: f"There is no route {request.method} {request.url.path[:100]}.",
            405: f"{request.method} is not a method of {request.url.path[:100]}.",
        }.get(error.status_code, str(error.detail))
        code = {404: "unknown_route", 405: "method_not_allowed"}.get(error.status_code)
        headers = dict(error.headers) if error.headers else None
        return HttpError(error.status_code, what, code=code, headers=headers).response()


def _validation_error(error: RequestValidationError) -> HttpError:
    """The first few faults of a body, without its content, which may be large or private."""
    faults = error.errors()
    if faults and faults[0]["type"] == "json_invalid":
        return HttpError(400, "Expected JSON in the body; it cannot be read as such.", code="invalid_json")
    parts = []
    for fault in faults[:3]:
        where = ".".join(str(part) for part in fault["loc"] if part != "body")
        parts.append(f"{where[:80]}: {fault['msg']}" if where else str(fault["msg"]))
    param = next((str(part) for part in (faults[0]["loc"] if faults else ()) if part != "body"), None)
    return HttpError(400, _short("; ".join(parts)), code="invalid_field", param=_short(param)[:80] if param else None)


def _short(text: str) -> str:
    # A lone surrogate cannot be sent; it may come from the body by way of a message.
    text = text.encode("utf8", "replace").decode("utf8")
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "..."
