"""What a request must pass before it is read: the server is up, the key is right, the body is JSON and not too big."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glotfuse.serving.http.http_errors import CLIENT_GONE, HttpError

_GUARDED = "/v1/"
_SLOW_BODY = 30.0
"""Seconds within which a body must have arrived."""
_DISCARDED = 10
"""How many times the largest body is read of one that is larger, before the connection is closed."""


@dataclass
class ServerState:
    """What changes while the server runs."""

    draining: bool = False
    """Whether it shuts down: running requests are finished, new ones refused."""
    open_requests: int = 0
    """Requests under `/v1/` that are not yet answered."""


class _ClientGone(Exception):
    """Nobody waits for the answer."""


class Gate:
    """Middleware for the routes under `/v1/`; others pass.

    Args:
        app: What answers.
        state: Whether the server shuts down; open requests are counted there.
        api_key: What clients must send as bearer token; None asks for none.
        max_body_bytes: Largest body; it is counted while it arrives, whatever its headers say.
    """

    def __init__(self, app: ASGIApp, state: ServerState, api_key: str | None, max_body_bytes: int):
        self.app = app
        self.state = state
        self.api_key = api_key
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI asks for."""
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
            await self.app(scope, receive, send)
            return
        self.state.open_requests += 1
        try:
            headers = Headers(scope=scope)
            try:
                self._check_state()
                self._check_key(headers)
                body = await self._body(headers, receive) if scope["method"] in ("POST", "PUT", "PATCH") else b""
            except _ClientGone:
                await Response(status_code=CLIENT_GONE)(scope, receive, send)
            except HttpError as error:
                await error.response()(scope, receive, send)
            else:
                await self.app(scope, _replayed(body, receive), send)
        finally:
            self.state.open_requests -= 1

    def _check_state(self) -> None:
        if self.state.draining:
            headers = {"Retry-After": "5", "Connection": "close"}
            raise HttpError(503, "The server is shutting down. Ask another one.", code="unavailable", headers=headers)

    def _check_key(self, headers: Headers) -> None:
        if self.api_key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # latin-1 as in the header, so that any byte can be compared
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.api_key.encode())
        if kind.lower() != "bearer" or not same:
            challenge = {"WWW-Authenticate": "Bearer"}
            message = "Expected the API key in the header 'Authorization: Bearer KEY'; found none or another."
            raise HttpError(401, message, code="invalid_api_key", headers=challenge)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            message = f"Expected the content type application/json; found {kind[:60] or 'none'}."
            raise HttpError(415, message, code="unsupported_media_type", headers={"Connection": "close"})
        declared = headers.get("content-length", "")
        too_large = declared.isdigit() and (len(declared) > 18 or int(declared) > self.max_body_bytes)
        if too_large and "expect" in headers:  # the client asks before it sends anything
            raise self._too_large()
        try:
            async with asyncio.timeout(_SLOW_BODY):
                return await self._read(receive)
        except TimeoutError:
            message = f"Expected the whole body within {_SLOW_BODY:.0f} s."
            raise HttpError(408, message, code="slow_body", headers={"Connection": "close"}) from None

    async def _read(self, receive: Receive) -> bytes:
        """The body. Of one too large nothing is kept, but it is read up to a limit: clients send before they listen."""
        body, size, more = bytearray(), 0, True
        while more and size < _DISCARDED * self.max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self.max_body_bytes:
                body += part
            else:
                body.clear()
        if size > self.max_body_bytes:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> HttpError:
        message = f"Expected a body of at most {self.max_body_bytes:,} bytes; this one is larger. Send fewer texts."
        return HttpError(413, message, code="body_too_large", headers={"Connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives out the body that was read, then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
