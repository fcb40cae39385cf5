"""From an engine's pieces to HTTP answers: whole or as server-sent events, within a time, as long as someone waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glotfuse.serving.engine import Engine
from glotfuse.serving.http.http_errors import CLIENT_GONE, as_http_error
from glotfuse.serving.http.metrics import Metrics
from glotfuse.serving.requests import GenerateRequest, Piece

T = TypeVar("T")
_LAST_WORDS = 1.0
"""Seconds to tell a client that its stream has failed."""


class Usage:
    """Tokens of one HTTP request: the newest counts of each of its answers."""

    def __init__(self) -> None:
        self.newest: dict[int, Piece] = {}

    def counts(self) -> tuple[int, int]:
        """Positions read before all answers, and tokens generated for them."""
        pieces = self.newest.values()
        return sum(piece.prompt_tokens for piece in pieces), sum(piece.completion_tokens for piece in pieces)

    def to_dict(self) -> dict[str, int]:
        """As OpenAI's API gives it."""
        prompt, completion = self.counts()
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def generate_all(
    engine: Engine, requests: Sequence[GenerateRequest], usage: Usage, metrics: Metrics
) -> AsyncGenerator[tuple[int, Piece]]:
    """Pieces of several answers as they come, with the index of the answer; closing it ends them all."""
    pieces: asyncio.Queue[tuple[int, Piece] | BaseException] = asyncio.Queue(1)

    async def pump(index: int, request: GenerateRequest) -> None:
        try:
            async with contextlib.aclosing(engine.generate(request)) as generated:
                async for piece in generated:
                    await pieces.put((index, piece))
        except Exception as error:
            await pieces.put(error)

    begun, open_answers = time.monotonic(), len(requests)
    tasks = [asyncio.create_task(pump(index, request)) for index, request in enumerate(requests)]
    try:
        while open_answers:
            item = await pieces.get()
            if isinstance(item, BaseException):
                raise item
            if not usage.newest:
                metrics.first_piece.observe(time.monotonic() - begun)
            index, piece = item
            usage.newest[index] = piece
            if piece.finish_reason:
                open_answers -= 1
                metrics.texts.labels("generate", str(piece.truncated).lower()).inc()
            yield item
        await asyncio.gather(*tasks)  # what ends by itself ends in order
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for direction, count in zip(("in", "out"), usage.counts(), strict=True):
            metrics.tokens.labels(direction).inc(count)


async def collect(pieces: AsyncGenerator[tuple[int, Piece]], num_answers: int) -> list[Piece]:
    """Puts the pieces of each answer together to one."""
    answers = [Piece("")] * num_answers
    async with contextlib.aclosing(pieces):
        async for index, piece in pieces:
            answers[index] = replace(piece, text=answers[index].text + piece.text)
    return answers


class ClientAnswer(Response):
    """An answer whose work stops when the client goes away or time is up.

    Args:
        work: Makes the answer, or an `EventStream` that does.
        seconds: For everything, the stream included.
    """

    def __init__(self, work: Callable[[], Awaitable[Response]], seconds: float):
        super().__init__()
        self._work = work
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI asks for."""

        async def answer() -> None:
            deadline = asyncio.get_running_loop().time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._work()
            except Exception as error:
                response = as_http_error(error).response()
            if isinstance(response, EventStream):
                response.deadline = deadline
            await response(scope, receive, send)

        task, gone = asyncio.create_task(answer()), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
        # Nobody reads it, but it is what logs and metrics see, unless a stream has begun.
        with contextlib.suppress(Exception):
            await Response(status_code=CLIENT_GONE)(scope, receive, send)


class EventStream(Response):
    """Server-sent events; an error on the way becomes an event, as OpenAI's API does it.

    Args:
        first: The first event's data.
        rest: The others; closed in the end.
        metrics: For the gauge of streams.
        headers: More headers.
    """

    def __init__(self, first: Any, rest: AsyncGenerator[Any], metrics: Metrics, headers: dict[str, str] | None = None):
        more = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        super().__init__(headers=more, media_type="text/event-stream")
        del self.headers["content-length"]
        self.deadline: float | None = None
        self._first = first
        self._rest = rest
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI asks for."""

        async def event(data: str) -> None:
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._metrics.streams.track_inprogress():
            try:
                async with asyncio.timeout_at(self.deadline), contextlib.aclosing(self._rest):
                    await event(_json(self._first))
                    async for data in self._rest:
                        await event(_json(data))
                    await event("[DONE]")
            except Exception as error:
                try:
                    async with asyncio.timeout(_LAST_WORDS):
                        await event(_json(as_http_error(error).body()))
                except TimeoutError:
                    return  # it does not read; the connection ends without the last chunk
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def stream_of(events: AsyncGenerator[Any], metrics: Metrics, headers: dict[str, str] | None = None) -> Response:
    """Waits for the first event, so that a request that fails before has its own status, then streams."""
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events, metrics, headers)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
