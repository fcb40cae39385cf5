"""What a request must pass before it is read: the server is up, the key is right, the body is JSON and not too big."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glotfuse.serving.http.http_errors import CLIENT_GONE, HttpError

_GUARDED = "/v1/"
CROWDED = "glotfuse_crowded"
"""In the ASGI scope's `state` where there is one connection too many."""
_WITH_BODY = ("POST", "PUT", "PATCH")
_REFUSED_BODY = 2.0
"""Seconds that the body of a refused request is read for: an answer can be lost where the client still sends."""
_DISCARDED = 10
"""How many times the largest body is read of one that is larger, before the connection is closed."""


@dataclass
class ServerState:
    """What changes while the server runs."""

    draining: bool = False
    """Whether it shuts down: running requests are finished, new ones refused."""
    open_requests: int = 0
    """Requests under `/v1/` that are not yet answered."""
    bodies: set[asyncio.Timeout] = field(default_factory=set)
    """Of those that have not arrived."""

    def hurry(self, when: float) -> None:
        """Gives bodies that have not arrived until a time of the event loop's clock, at most."""
        for timeout in self.bodies:
            if timeout.expired():  # in this very moment; it cannot be changed any more
                continue
            timeout.reschedule(min(when, timeout.when() or when))


class _ClientGone(Exception):
    """Nobody waits for the answer."""


class Gate:
    """Middleware for the routes under `/v1/`; others pass.

    Args:
        app: What answers.
        state: Whether the server shuts down; open requests are counted there.
        api_key: What clients must send as bearer token; None asks for none.
        max_body_bytes: Largest body; it is counted while it arrives, whatever its headers say.
        body_seconds: Within which a body must have arrived.
    """

    def __init__(self, app: ASGIApp, state: ServerState, api_key: str | None, max_body_bytes: int, body_seconds: float):
        self.app = app
        self.state = state
        self.api_key = api_key
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI asks for."""
        if scope["type"] != "http" or not scope["path"].startswith(_GUARDED):
            await self.app(scope, receive, send)
            return
        self.state.open_requests += 1
        try:
            await self._pass(scope, receive, self._ending(send))
        finally:
            self.state.open_requests -= 1

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, has_body = Headers(scope=scope), scope["method"] in _WITH_BODY
        try:
            try:
                self._check_state(scope)
                self._check_key(headers)
                if has_body:
                    self._check_kind(headers)
            except HttpError:
                if has_body and "expect" not in headers:
                    await self._discard(receive)
                raise
            body = await self._body(headers, receive) if has_body else b""
        except _ClientGone:
            await Response(status_code=CLIENT_GONE)(scope, receive, send)
        except HttpError as error:
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, _replayed(body, receive), send)

    def _ending(self, send: Send) -> Send:
        """Says with every answer during shutdown that the connection ends with it."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and self.state.draining:
                headers = MutableHeaders(raw=message["headers"])
                headers["Connection"] = "close"
                message = {**message, "headers": headers.raw}
            await send(message)

        return sent

    def _check_state(self, scope: Scope) -> None:
        if self.state.draining:
            raise _shutting_down()
        if scope.get("state", {}).get(CROWDED):
            headers = {"Retry-After": "5", "Connection": "close"}
            message = "Expected room for one more connection; all are in use. Ask again later."
            raise HttpError(503, message, code="too_many_connections", headers=headers)

    def _check_key(self, headers: Headers) -> None:
        if self.api_key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # latin-1 as in the header, so that any byte can be compared
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.api_key.encode())
        if kind.lower() != "bearer" or not same:
            challenge = {"WWW-Authenticate": "Bearer", "Connection": "close"}
            message = "Expected the API key in the header 'Authorization: Bearer KEY'; found none or another."
            raise HttpError(401, message, code="invalid_api_key", headers=challenge)

    def _check_kind(self, headers: Headers) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            message = f"Expected the content type application/json; found {kind[:60] or 'none'}."
            raise HttpError(415, message, code="unsupported_media_type", headers={"Connection": "close"})

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get("content-length", "")
        too_large = declared.isdigit() and (len(declared) > 18 or int(declared) > self.max_body_bytes)
        if too_large and "expect" in headers:  # the client asks before it sends anything
            raise self._too_large()
        timeout = asyncio.timeout(self.body_seconds)
        try:
            async with timeout:
                self.state.bodies.add(timeout)
                return await self._read(receive)
        except TimeoutError:
            if self.state.draining:
                raise _shutting_down() from None
            message = f"Expected the whole body within {self.body_seconds:g} s."
            raise HttpError(408, message, code="slow_body", headers={"Connection": "close"}) from None
        finally:
            self.state.bodies.discard(timeout)

    async def _discard(self, receive: Receive) -> None:
        with contextlib.suppress(TimeoutError, HttpError):
            async with asyncio.timeout(_REFUSED_BODY):
                await self._read(receive)

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


def _shutting_down() -> HttpError:
    headers = {"Retry-After": "5", "Connection": "close"}
    return HttpError(503, "The server is shutting down. Ask another one.", code="unavailable", headers=headers)


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
