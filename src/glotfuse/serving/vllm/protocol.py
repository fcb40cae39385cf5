"""A generation request in the words of vLLM, and its chunks as pieces of an answer."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glotfuse.serving.answer_text import AnswerText
from glotfuse.serving.engine import UnavailableError
from glotfuse.serving.requests import FinishReason, GenerateRequest, Piece

_MOST_STOPS = 4
"""Most stop texts that vLLM takes; further ones are looked for here alone."""
_REASONS = ("stop", "length")
_PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Settings that change nothing, said so that those which a server has of its own do not count."""


def generation_body(request: GenerateRequest, ends: Sequence[int], max_tokens: int) -> dict[str, Any]:
    """The fields of a completions request, without prompt."""
    body: dict[str, Any] = {
        "max_tokens": max_tokens,
        **_PLAIN,
        "temperature": request.temperature if request.is_sampled else 0.0,
        "top_p": request.top_p if request.is_sampled else 1.0,
        "ignore_eos": True,
        "stop_token_ids": list(ends),
        "stop": list(request.stop[:_MOST_STOPS]),
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    return {**body, "seed": request.seed} if request.is_sampled and request.seed is not None else body


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


def payload(embeddings: Tensor) -> str:
    """One prompt's embeddings (M,H) as text for JSON; the server casts them to its own dtype."""
    content = io.BytesIO()
    # A view would be saved with the whole batch behind it.
    torch.save(embeddings.detach().to("cpu", copy=True).contiguous(), content)
    return base64.b64encode(content.getvalue()).decode("ascii")


def question_body(token_ids: Sequence[int], *, single: bool = False) -> dict[str, Any]:
    """The fields of a completions request, without prompts, that ask for tokens' log-probabilities.

    They are those of the model, before any temperature or penalty. There is no seed: a seeded request whose prompt vLLM
    reads in several parts ends its engine on a CPU (0.32).
    """
    body: dict[str, Any] = {
        **_PLAIN,
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "return_tokens_as_token_ids": True,
    }
    if single:
        return {**body, "logprobs": 0, "allowed_token_ids": list(token_ids)}
    return {**body, "logprobs": len(token_ids), "logprob_token_ids": list(token_ids)}


def read_log_probabilities(answer: Mapping[str, Any], num_prompts: int) -> list[dict[int, float]]:
    """Log-probabilities by token id after each prompt.

    Raises:
        UnavailableError: The answer has another form.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        found = [_of_choice(choice["logprobs"]) for choice in choices]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UnavailableError(
            f"Expected log-probabilities with token ids from the vLLM server; found {str(answer)[:200]}."
        ) from error
    if len(found) != num_prompts:
        raise UnavailableError(f"Expected {num_prompts} answers from the vLLM server; found {len(found)}.")
    return found


def _of_choice(logprobs: Mapping[str, Any]) -> dict[int, float]:
    top = (logprobs.get("top_logprobs") or [None])[0] or {}
    named = {**top, logprobs["tokens"][0]: logprobs["token_logprobs"][0]}
    return {int(name.removeprefix("token_id:")): float(value) for name, value in named.items()}
