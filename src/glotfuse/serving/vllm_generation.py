"""A generation request in the words of vLLM, and its chunks as pieces of an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from glotfuse.serving.answer_text import AnswerText
from glotfuse.serving.engine import UnavailableError
from glotfuse.serving.requests import FinishReason, GenerateRequest, Piece

_MOST_STOPS = 4
"""Most stop texts that vLLM takes; further ones are looked for here alone."""
_REASONS = ("stop", "length")
_GREEDY = 1e-3
"""Temperatures below are taken for zero, as in the in-process engine."""


def generation_body(request: GenerateRequest, ends: Sequence[int], max_tokens: int) -> dict[str, Any]:
    """The fields of a completions request, without prompt: settings that a server has of its own do not count."""
    temperature = request.temperature if request.temperature >= _GREEDY else 0.0
    body: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": request.top_p if temperature else 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": True,
        "stop_token_ids": list(ends),
        "stop": list(request.stop[:_MOST_STOPS]),
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    return {**body, "seed": request.seed} if temperature and request.seed is not None else body


async def answer_pieces(
    chunks: AsyncGenerator[dict[str, Any]], request: GenerateRequest, num_prompt: int, truncated: bool
) -> AsyncGenerator[Piece]:
    """Turns a server's chunks into pieces."""
    text = AnswerText(None, request.stop)
    count = 0
    async for chunk in chunks:
        count = int((chunk.get("usage") or {}).get("completion_tokens") or count)
        if not chunk.get("choices"):
            continue
        choice = chunk["choices"][0]
        new = text.add_text(choice.get("text") or "")
        given = "stop" if text.stopped else choice.get("finish_reason")
        if given and given not in _REASONS:
            raise UnavailableError(f"The vLLM server gave up the answer ({given}).")
        if given:
            reason: FinishReason = "length" if given == "length" else "stop"
            yield Piece(new + text.finish(), reason, num_prompt, count, truncated)
            return
        if new:
            yield Piece(new, None, num_prompt, count, truncated)
    raise UnavailableError("The vLLM server broke off its answer before the end.")
