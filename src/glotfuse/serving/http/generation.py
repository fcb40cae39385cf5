"""What `/v1/completions` and `/v1/chat/completions` share: answers whole or streamed, in each one's own shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from starlette.responses import Response

from glotfuse.serving.http.answers import ClientAnswer, Usage, collect, generate_all, stream_of
from glotfuse.serving.http.schemas import GenerationBody
from glotfuse.serving.http.service import Service, head
from glotfuse.serving.requests import GenerateRequest, Piece


@dataclass(frozen=True)
class AnswerFormat:
    """How a route writes its answers."""

    prefix: str
    """Of ids."""
    whole: str
    """The `object` of a whole answer."""
    streamed: str
    """The `object` of a chunk."""
    choice: Callable[[Piece], dict[str, Any]]
    """How a choice gives the text of a whole answer."""
    chunk: Callable[[Piece, bool], dict[str, Any]]
    """How a choice gives the text of a piece; told whether the piece is its answer's first."""


def respond(
    service: Service,
    model: str,
    body: GenerationBody,
    requests: Sequence[GenerateRequest],
    form: AnswerFormat,
    headers: dict[str, str] | None = None,
) -> Response:
    """Answers all requests, as events where the body asks for a stream."""

    async def work() -> Response:
        if body.stream:
            return await stream_of(_events(service, model, body, requests, form), service.metrics, headers)
        usage = Usage()
        answers = await collect(generate_all(service.engine, requests, usage, service.metrics), len(requests))
        choices = [_choice(index, answer, form.choice(answer)) for index, answer in enumerate(answers)]
        begun = head(form.prefix, form.whole, model)
        return JSONResponse({**begun, "choices": choices, "usage": usage.to_dict()}, headers=headers)

    return ClientAnswer(work, service.settings.timeout)


async def _events(
    service: Service, model: str, body: GenerationBody, requests: Sequence[GenerateRequest], form: AnswerFormat
) -> AsyncGenerator[dict[str, Any]]:
    same, usage = head(form.prefix, form.streamed, model), Usage()
    more = {"usage": None} if body.with_usage else {}
    begun: set[int] = set()
    pieces = generate_all(service.engine, requests, usage, service.metrics)
    try:
        async for index, piece in pieces:
            choice = _choice(index, piece, form.chunk(piece, index not in begun))
            begun.add(index)
            yield {**same, "choices": [choice], **more}
        if body.with_usage:
            yield {**same, "choices": [], "usage": usage.to_dict()}
    finally:
        await pieces.aclose()


def _choice(index: int, piece: Piece, said: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": index, **said, "logprobs": None, "finish_reason": piece.finish_reason}
    return {**choice, "truncated": piece.truncated} if piece.finish_reason else choice
