"""`/v1/chat/completions`: the last user message is the text that the encoder reads, system messages the instruction.

A fused model reads one text at a time. Earlier turns are not read; the header `X-Glotfuse-Messages-Ignored` says how
many there were.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from glotfuse.serving.http.answers import ClientAnswer, Usage, collect, generate_all, stream_of
from glotfuse.serving.http.http_errors import HttpError
from glotfuse.serving.http.schemas import MAX_INSTRUCTION_CHARS, MAX_TEXT_CHARS, ChatBody, Message
from glotfuse.serving.http.service import Service, Shared, new_id
from glotfuse.serving.requests import GenerateRequest

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(body: ChatBody, service: Shared) -> Response:
    """Answers the last user message."""
    model = service.check_model(body.model)
    text, instruction, ignored = _read(body.messages)
    request = GenerateRequest(
        text=text,
        language=body.language,
        instruction=instruction,
        max_new_tokens=body.new_tokens,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=tuple(body.stop or ()),
    )
    headers = {"X-Glotfuse-Messages-Ignored": str(ignored)}

    async def work() -> Response:
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return await stream_of(_events(service, request, model, include_usage), service.metrics, headers)
        usage = Usage()
        pieces = generate_all(service.engine, [request], usage, service.metrics)
        (answer,) = await collect(pieces, 1)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "truncated": answer.truncated,
        }
        content = {**_head(model, "chat.completion"), "choices": [choice], "usage": usage.to_dict()}
        return JSONResponse(content, headers=headers)

    return ClientAnswer(work, service.settings.timeout)


def _read(messages: Sequence[Message]) -> tuple[str, str | None, int]:
    """Text, instruction and number of turns that are not read.

    Raises:
        HttpError: The last message is not the user's, or one is too long.
    """
    system = [message.text for message in messages if message.role in ("system", "developer")]
    turns = [message for message in messages if message.role in ("user", "assistant")]
    if not turns or messages[-1].role != "user":
        message = f"Expected the user's message at the end, which is read; found {messages[-1].role!r}."
        raise HttpError(400, message, code="invalid_field", param="messages")
    text, instruction = turns[-1].text, "\n\n".join(part for part in system if part.strip())
    for what, found, most in (("user", text, MAX_TEXT_CHARS), ("system", instruction, MAX_INSTRUCTION_CHARS)):
        if len(found) > most:
            message = f"Expected at most {most:,} characters from {what!r}; found {len(found):,}."
            raise HttpError(400, message, code="invalid_field", param="messages")
    return text, instruction or None, len(turns) - 1


async def _events(
    service: Service, request: GenerateRequest, model: str, include_usage: bool
) -> AsyncGenerator[dict[str, Any]]:
    head, usage = _head(model, "chat.completion.chunk"), Usage()
    more = {"usage": None} if include_usage else {}
    role: dict[str, str] = {"role": "assistant"}
    pieces = generate_all(service.engine, [request], usage, service.metrics)
    try:
        async for _, piece in pieces:
            delta = {**role, "content": piece.text} if piece.text or role else {}
            role = {}
            choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None}
            choice["finish_reason"] = piece.finish_reason
            if piece.finish_reason:
                choice["truncated"] = piece.truncated
            yield {**head, "choices": [choice], **more}
        if include_usage:
            yield {**head, "choices": [], "usage": usage.to_dict()}
    finally:
        await pieces.aclose()


def _head(model: str, kind: str) -> dict[str, Any]:
    answer_id, created = new_id("chatcmpl")
    return {"id": answer_id, "object": kind, "created": created, "model": model}
