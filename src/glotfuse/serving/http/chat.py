"""`/v1/chat/completions`: the last user message is the text that the encoder reads, system messages the instruction.

A fused model reads one text at a time. Earlier turns are not read; the header `X-Glotfuse-Messages-Ignored` says how
many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from glotfuse.serving.http.generation import AnswerFormat, respond
from glotfuse.serving.http.http_errors import HttpError
from glotfuse.serving.http.schemas import MAX_INSTRUCTION_CHARS, MAX_TEXT_CHARS, ChatBody, Message
from glotfuse.serving.http.service import Shared
from glotfuse.serving.requests import Piece

router = APIRouter()


def _delta(piece: Piece, is_first: bool) -> dict[str, Any]:
    role = {"role": "assistant"} if is_first else {}
    return {"delta": {**role, "content": piece.text} if piece.text or is_first else {}}


_FORMAT = AnswerFormat(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    choice=lambda answer: {"message": {"role": "assistant", "content": answer.text, "refusal": None}},
    chunk=_delta,
)


@router.post("/v1/chat/completions")
async def chat(body: ChatBody, service: Shared) -> Response:
    """Answers the last user message."""
    model = service.check_model(body.model)
    text, instruction, ignored = _read(body.messages)
    headers = {"X-Glotfuse-Messages-Ignored": str(ignored)}
    return respond(service, model, body, [body.request(text, instruction, body.seed)], _FORMAT, headers)


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
