"""From texts to the embeddings that an LM reads: encoder, fusion and prompt, in batches on a worker thread.

Both engines use it. Shapes: M positions (head, span, plain text, tail), H LM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from glotfuse.api import FusedLM
    from glotfuse.inputs.reader import Text


@dataclass(frozen=True)
class Query:
    """A text with the prompt around it, prepared for a batch."""

    example: PreparedExample
    prompt: Prompt


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


def embed(model: FusedLM, queries: Sequence[Query]) -> list[Tensor]:
    """What the LM reads for each query of a batch with one prompt: (M,H), head included, unpadded, in its dtype.

    Raises:
        ValueError: The queries have different prompts.
    """
    prompt = queries[0].prompt
    if any(query.prompt != prompt for query in queries):
        raise ValueError("Expected queries with one prompt; found several. Batch them by `prompt.head_ids`.")
    with model.answering():
        sequences = model.assemble(collate([q.example for q in queries], model.encoder.pad_token_id), prompt)
        whole = model.with_head(sequences, prompt)
        return [embeddings[mask].to(model.lm.dtype) for embeddings, mask in zip(*whole[:2], strict=True)]
