"""From texts to the embeddings that an LM reads: encoder, fusion and prompt, in batches on a worker thread.

Both engines use it. Shapes: M positions (head, span, plain text, tail), H LM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.prompts import Prompt
from glotfuse.serving.engine import ModelDescription
from glotfuse.serving.requests import Text

if TYPE_CHECKING:
    from torch import Tensor

    from glotfuse.api import FusedLM

_MOST_VIEWS = 16
"""Most choices of label words and instruction that are remembered: they come from clients."""


@dataclass(frozen=True)
class Query:
    """A text with the prompt around it, prepared for a batch."""

    example: PreparedExample
    prompt: Prompt


@dataclass(frozen=True)
class PromptEmbeddings:
    """One row as the LM reads it."""

    embeddings: Tensor
    """(M,H), in the LM's dtype, head included."""
    truncated: bool
    """Whether the text was cut."""


def prepare(model: FusedLM, text: Text, language: str | None, prompt: Prompt) -> Query:
    """Tokenizes one text; cheap enough for any thread, and the place where bad input is found.

    Raises:
        PromptError: The text is empty or lacks a column, or text and instruction are longer than what the LM reads.
        BackboneError: The encoder does not know the language.
    """
    (example,) = model.prepare([text], language, prompt)
    context = context_length(model)
    num_prompt = len(prompt.head_ids) + len(example.encoder_ids) + len(example.text_ids) + len(prompt.tail_ids)
    if context is not None and num_prompt >= context:
        raise PromptError(
            f"Expected text and instruction within the {context} positions that the LM reads; found about "
            f"{num_prompt}. Shorten the instruction."
        )
    return Query(example, prompt)


def context_length(model: FusedLM) -> int | None:
    """Most positions that the LM reads and writes, where its config says so."""
    found = getattr(model.lm.model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def embed(model: FusedLM, queries: Sequence[Query]) -> list[PromptEmbeddings]:
    """Embeddings of a batch of queries with the same prompt, each without padding.

    Raises:
        ValueError: The queries have different prompts.
    """
    prompt = queries[0].prompt
    if any(query.prompt != prompt for query in queries):
        raise ValueError("Expected queries with one prompt; found several. Batch them by `prompt.head_ids`.")
    with model.answering():
        sequences = model.assemble(collate([q.example for q in queries], model.encoder.pad_token_id), prompt)
        whole = model.with_head(sequences, prompt)
        rows = [embeddings[mask].to(model.lm.dtype) for embeddings, mask in zip(*whole[:2], strict=True)]
    return [PromptEmbeddings(row, q.example.truncated) for row, q in zip(rows, queries, strict=True)]


class LabelViews:
    """Remembers the views of `FusedModel.with_labels` that were asked for last, so that equal requests share one.

    Args:
        model: The fused model.
    """

    def __init__(self, model: FusedLM):
        self._view = lru_cache(_MOST_VIEWS)(model.with_labels)

    def __call__(self, labels: Sequence[str] | None, instruction: str | None) -> FusedLM:
        """The view for these label words and this instruction; see `FusedModel.with_labels`."""
        return self._view(None if labels is None else tuple(labels), instruction)


def describe(model: FusedLM, name: str, engine: str) -> ModelDescription:
    """What clients may know about a served model."""
    return ModelDescription(
        name=name,
        encoder=model.encoder.identity.name,
        lm=model.lm.identity.name,
        labels=model.labels,
        columns=model.reader.columns,
        max_length=model.reader.max_length,
        engine=engine,
    )
