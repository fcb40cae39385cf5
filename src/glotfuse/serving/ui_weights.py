"""Layer weights of a text's tokens, as the page shows them.

Shapes: T tokens, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glotfuse.serving.requests import Text

if TYPE_CHECKING:
    from glotfuse.model import FusedLM


@dataclass(frozen=True)
class TokenWeights:
    """What the LM reads of each layer."""

    text: str
    """The text alone, without the template around it."""
    tokens: tuple[str, ...]
    """(T,), as they are written in the text; special tokens by their names."""
    special: tuple[bool, ...]
    """(T,), true for tokens that stand for no text."""
    weights: tuple[tuple[float, ...], ...]
    """(T,L), fractions that sum to one over L."""
    shared: bool
    """Whether every token has the same weights, whatever the text."""
    truncated: bool
    """Whether the text was cut."""

    @property
    def mean(self) -> tuple[float, ...]:
        """(L,), over the tokens that are no special ones, or over all where there are no others."""
        rows = [row for row, special in zip(self.weights, self.special, strict=True) if not special] or self.weights
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def token_weights(model: FusedLM, text: Text, language: str | None) -> TokenWeights | None:
    """Reads them off the model, on the thread that may use it; None for a model that reads no encoder.

    Raises:
        PromptError: The text is empty or lacks a column.
        BackboneError: The encoder does not know the language.
    """
    from glotfuse.inspection import text_weights
    from glotfuse.inspection.tokens import special_ids

    if not model.fusion.reads_encoder:
        return None
    (found,) = text_weights(model, [text], language)
    specials = special_ids(model.encoder, language)
    fields = model.reader.fields(text)
    with model.answering():
        shared = model.fusion.mixer.shared_weights() is not None
    return TokenWeights(
        text=" ".join(fields[column] for column in model.reader.columns),
        tokens=found.tokens,
        special=tuple(token in specials for token in found.token_ids),
        weights=found.weights,
        shared=shared,
        truncated=found.truncated,
    )
