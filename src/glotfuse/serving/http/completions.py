"""`/v1/completions`: the prompt is the text that the encoder reads, in any of its languages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from glotfuse.serving.http.answers import ClientAnswer, Usage, collect, generate_all, stream_of
from glotfuse.serving.http.schemas import CompletionBody
from glotfuse.serving.http.service import Service, Shared, new_id
from glotfuse.serving.requests import GenerateRequest

router = APIRouter()


@router.post("/v1/completions")
async def complete(body: CompletionBody, service: Shared) -> Response:
    """Answers one or several texts."""
    model = service.check_model(body.model)
    requests = [
        GenerateRequest(
            text=text,
            language=body.language,
            instruction=body.instruction,
            max_new_tokens=body.new_tokens,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            # answers to equal texts are independent samples
            seed=None if body.seed is None else body.seed + index if body.seed < 2**62 else body.seed - index,
            stop=tuple(body.stop or ()),
        )
        for index, text in enumerate(body.prompt)
    ]

    async def work() -> Response:
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return await stream_of(_events(service, requests, model, include_usage), service.metrics)
        usage = Usage()
        pieces = generate_all(service.engine, requests, usage, service.metrics)
        choices = [
            _choice(index, answer.text, answer.finish_reason, truncated=answer.truncated)
            for index, answer in enumerate(await collect(pieces, len(requests)))
        ]
        return JSONResponse({**_head(model), "choices": choices, "usage": usage.to_dict()})

    return ClientAnswer(work, service.settings.timeout)


async def _events(
    service: Service, requests: list[GenerateRequest], model: str, include_usage: bool
) -> AsyncGenerator[dict[str, Any]]:
    head, usage = _head(model), Usage()
    more = {"usage": None} if include_usage else {}
    pieces = generate_all(service.engine, requests, usage, service.metrics)
    try:
        async for index, piece in pieces:
            truncated = piece.truncated if piece.finish_reason else None
            yield {**head, "choices": [_choice(index, piece.text, piece.finish_reason, truncated=truncated)], **more}
        if include_usage:
            yield {**head, "choices": [], "usage": usage.to_dict()}
    finally:
        await pieces.aclose()


def _head(model: str) -> dict[str, Any]:
    answer_id, created = new_id("cmpl")
    return {"id": answer_id, "object": "text_completion", "created": created, "model": model}


def _choice(index: int, text: str, finish_reason: str | None, *, truncated: bool | None) -> dict[str, Any]:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return choice if truncated is None else {**choice, "truncated": truncated}
