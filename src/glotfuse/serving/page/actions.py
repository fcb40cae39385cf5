"""What the page's buttons do: requests to the engine, answers and errors as HTML."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from glotfuse.errors import GlotfuseError, PromptError
from glotfuse.inputs.reader import Text
from glotfuse.inspection.weights import TokenWeights
from glotfuse.serving.engine import Engine
from glotfuse.serving.http.schemas import MAX_LABELS, MAX_TEXT_CHARS
from glotfuse.serving.page.html import labels_html, message_html, text_html, weights_html
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece

logger = logging.getLogger(__name__)

MOST_NEW_TOKENS = 256

WAITING = "The answer appears here."
NO_WEIGHTS_YET = "After an answer you see here which layers of the encoder the model read."
_NO_LAYERS = "In this model the LM reads the plain text itself, so there are no layer weights."
_BROKEN = "The server could not answer. Its log says why."
_SEPARATORS = re.compile("[,;\n،؛፣፤၊、，；]")

Shown = tuple[str, str]
"""HTML of the answer and of the layer weights."""
ReadWeights = Callable[[Text, str | None], Awaitable[TokenWeights | None]]
Item = TypeVar("Item")


def parse_labels(written: str, own: Sequence[str]) -> tuple[str, ...] | None:
    """Label words as a user writes them, separated by commas (of any script), semicolons or new lines.

    Args:
        written: By the user.
        own: The model's own label words.

    Returns:
        The words, each once; None for the model's own, also when nothing is written.

    Raises:
        PromptError: There is only one word, there are too many, or none at all.
    """
    words = tuple(dict.fromkeys(word for part in _SEPARATORS.split(written) if (word := " ".join(part.split()))))
    if own and words in ((), tuple(own)):
        return None
    if not 2 <= len(words) <= MAX_LABELS:
        raise PromptError(
            f"Expected 2 to {MAX_LABELS} labels, separated by commas; found {len(words) or 'none'}. "
            "Write, for example: good news, bad news."
        )
    return words


class Actions:
    """The page's functions; each yields what is shown, as far as it has come.

    Args:
        engine: Answers.
        read_weights: Reads a text's layer weights without disturbing the engine; None where that cannot be done.
        timeout: Seconds after which an answer is given up.
    """

    def __init__(self, engine: Engine, read_weights: ReadWeights | None, timeout: float):
        self.engine = engine
        self.read_weights = read_weights
        self.timeout = timeout

    async def label(
        self, texts: Sequence[str], labels: str, question: str, language: str | None = None
    ) -> AsyncIterator[Shown]:
        """Labels a text.

        Args:
            texts: One for each column of the model's input.
            labels: Label words as written; empty for the model's own.
            question: English instruction; empty for the one that was trained.
            language: Code of the text's language, for encoders that need it.
        """
        about = self.engine.description
        try:
            text = self._text(texts)
            words = parse_labels(labels, about.labels)
            request = ClassifyRequest((text,), language or None, words, _checked(question, "question"))
            yield message_html("Reading …", "hint"), ""
            (found,) = await asyncio.wait_for(self.engine.classify(request), self.timeout)
        except Exception as error:
            yield _failed(error), ""
            return
        notes = _cut_notes(found.truncated, about.max_length)
        if words is not None and about.labels:
            notes.append("These are not the labels that the model was trained on, so expect more mistakes.")
        answer = labels_html(found.label, found.probabilities, notes)
        yield answer, message_html("Reading the layers …", "hint")
        yield answer, await self._weights(text, language or None)

    async def write(
        self,
        texts: Sequence[str],
        instruction: str,
        max_new_tokens: float,
        temperature: float,
        language: str | None = None,
    ) -> AsyncIterator[Shown]:
        """Writes an answer, piece by piece.

        Args:
            texts: One for each column of the model's input.
            instruction: In English; empty for the one that was trained.
            max_new_tokens: Most tokens of the answer.
            temperature: 0 for the most probable answer.
            language: Code of the text's language, for encoders that need it.
        """
        written, last = "", Piece("")
        try:
            text = self._text(texts)
            request = GenerateRequest(
                text,
                language or None,
                _checked(instruction, "instruction"),
                max_new_tokens=max(1, min(MOST_NEW_TOKENS, int(max_new_tokens))),
                temperature=max(0.0, min(2.0, float(temperature))),
            )
            yield message_html("Reading …", "hint"), ""
            async with aclosing(self.engine.generate(request)) as pieces:
                async for last in _within(pieces, self.timeout):
                    written += last.text
                    yield text_html(written, running=True), ""
        except Exception as error:
            yield (text_html(written, running=False) if written else "") + _failed(error), ""
            return
        notes = _cut_notes(last.truncated, self.engine.description.max_length)
        if last.finish_reason == "length":
            notes.append(f"The answer was stopped at the limit of {request.max_new_tokens} tokens.")
        answer = text_html(written, running=False, notes=notes)
        yield answer, message_html("Reading the layers …", "hint")
        yield answer, await self._weights(text, language or None)

    def _text(self, texts: Sequence[str]) -> Text:
        columns = self.engine.description.columns
        for column, text in zip(columns, texts, strict=True):
            named = f" ({column})" if len(columns) > 1 else ""
            if not (text or "").strip():
                raise PromptError(f"Type a text first{named}, or choose a sample sentence.")
            if len(text) > MAX_TEXT_CHARS:
                raise PromptError(f"Expected at most {MAX_TEXT_CHARS:,} characters{named}; found {len(text):,}.")
        return texts[0] if len(columns) == 1 else dict(zip(columns, texts, strict=True))

    async def _weights(self, text: Text, language: str | None) -> str:
        if self.read_weights is None:
            return message_html("This engine does not show layer weights.", "hint")
        try:
            found = await asyncio.wait_for(self.read_weights(text, language), self.timeout)
        except Exception as error:
            return _failed(error)
        return message_html(_NO_LAYERS, "hint") if found is None else weights_html(found)


async def _within(items: AsyncGenerator[Item], seconds: float) -> AsyncIterator[Item]:
    """Passes items on, the last of them within so many seconds."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        left = max(0.0, end - asyncio.get_running_loop().time())
        try:
            item = await asyncio.wait_for(anext(items), left)
        except StopAsyncIteration:
            return
        yield item


def _checked(instruction: str, name: str) -> str | None:
    """An instruction as written; None for an empty one."""
    if len(instruction or "") > MAX_TEXT_CHARS:
        raise PromptError(f"Expected at most {MAX_TEXT_CHARS:,} characters in the {name}; found {len(instruction):,}.")
    return (instruction or "").strip() or None


def _cut_notes(truncated: bool, max_length: int) -> list[str]:
    if not truncated:
        return []
    return [f"The text is longer than the {max_length} tokens that the model reads; its end was cut off and not read."]


def _failed(error: Exception) -> str:
    """An error as a message; only errors that a user can mend are spelt out."""
    if isinstance(error, TimeoutError):
        return message_html("The answer took too long and was given up. Try a shorter text, or later.")
    if isinstance(error, GlotfuseError):
        return message_html(str(error))
    logger.error("The page could not answer.", exc_info=error)
    return message_html(_BROKEN)
