"""Layer weights of a text's tokens, as the page shows them.

Shapes: T tokens, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glotfuse.inputs import PreparedExample, collate
from glotfuse.inspection.tokens import special_ids, written_tokens
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

    @property
    def mean(self) -> tuple[float, ...]:
        """(L,), over the tokens that are no special ones, or over all where there are no others."""
        rows = [row for row, special in zip(self.weights, self.special, strict=True) if not special] or self.weights
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


@dataclass(frozen=True)
class ExampleWeights:
    """The weights of a prepared text."""

    weights: tuple[tuple[float, ...], ...]
    """(T,L)."""
    shared: bool
    """Whether the mixer gives every token the same."""


def example_weights(model: FusedLM, example: PreparedExample) -> ExampleWeights:
    """Runs encoder and mixer, and no tokenizer, over one text."""
    batch = collate([example], model.encoder.pad_token_id)
    with model.answering():
        shared = model.fusion.mixer.shared_weights() is not None
        layer_weights = model.span(batch).layer_weights
    rows = layer_weights.cpu().expand(1, len(example.encoder_ids), -1)[0].tolist()
    return ExampleWeights(tuple(map(tuple, rows)), shared)


def token_weights(
    model: FusedLM, text: Text, language: str | None, example: PreparedExample, found: ExampleWeights
) -> TokenWeights:
    """Writes the tokens beside their weights; uses the encoder's tokenizer, and no weights.

    Args:
        model: The model.
        text: What `example` was prepared from.
        language: Code of the text's language.
        example: The text in token ids.
        found: Its weights.
    """
    ids, fields = example.encoder_ids, model.reader.fields(text)
    specials = special_ids(model.encoder, language)
    return TokenWeights(
        text=" ".join(fields[column] for column in model.reader.columns),
        tokens=tuple(written_tokens(model.encoder, model.reader.template.format_map(fields), ids, language)),
        special=tuple(token in specials for token in ids),
        weights=found.weights,
        shared=found.shared,
    )
