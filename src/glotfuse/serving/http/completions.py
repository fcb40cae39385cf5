"""`/v1/completions`: the prompt is the text that the encoder reads, in any of its languages."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from glotfuse.serving.http.generation import AnswerFormat, respond
from glotfuse.serving.http.schemas import CompletionBody
from glotfuse.serving.http.service import Shared

router = APIRouter()
_FORMAT = AnswerFormat(
    "cmpl",
    "text_completion",
    "text_completion",
    choice=lambda answer: {"text": answer.text},
    chunk=lambda piece, _: {"text": piece.text},
)


@router.post("/v1/completions")
async def complete(body: CompletionBody, service: Shared) -> Response:
    """Answers one or several texts."""
    model, requests = service.check_model(body.model), []
    for index, text in enumerate(body.prompt):
        seed = body.seed
        if seed is not None:  # answers to equal texts are independent samples
            seed += index if seed < 2**62 else -index
        requests.append(body.request(text, body.instruction, seed))
    return respond(service, model, body, requests, _FORMAT)
