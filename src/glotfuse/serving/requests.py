"""What an engine is asked, and what it answers: plain values, no HTTP, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from glotfuse.inputs.reader import Text

_GREEDY = 1e-3
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerateRequest:
    """One answer to one text."""

    text: Text
    """In any of the encoder's languages; a mapping of columns for a task with several."""
    language: str | None = None
    """Code of the text's language; only NLLB-like encoders need it."""
    instruction: str | None = None
    """English text before the span; None keeps the prompt that was trained."""
    max_new_tokens: int = 64
    """Most tokens of the answer."""
    temperature: float = 0.0
    """0 takes the most probable token, as `FusedLM.generate` does; above, tokens are sampled."""
    top_p: float = 1.0
    """Sampling is from the most probable tokens that reach this probability together."""
    seed: int | None = None
    """Of the sampling; None takes a random one."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are sampled; tiny temperatures are taken for zero."""
        return self.temperature >= _GREEDY


@dataclass(frozen=True)
class Piece:
    """Some more text of an answer. The last one has a finish reason, and only that one."""

    text: str
    """Whole characters; may be empty."""
    finish_reason: FinishReason | None = None
    """`stop`: the LM ended the answer, or a stop text appeared; `length`: `max_new_tokens` are reached, or the
    LM's last position is."""
    prompt_tokens: int = 0
    """Positions that the LM reads before the answer: head, span, plain text, tail."""
    completion_tokens: int = 0
    """Tokens generated so far, the end included."""
    truncated: bool = False
    """Whether the text was cut to the length limit."""


@dataclass(frozen=True)
class ClassifyRequest:
    """Label scores of texts."""

    texts: tuple[Text, ...]
    """In any of the encoder's languages."""
    language: str | None = None
    """Code of the texts' language; only NLLB-like encoders need it."""
    labels: tuple[str, ...] | None = None
    """Label words; None takes the model's own."""
    instruction: str | None = None
    """English text before the span, with `{labels}` for the label words; None keeps the prompt that was trained."""
