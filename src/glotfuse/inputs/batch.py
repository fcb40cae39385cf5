"""Examples in token ids, and batches of them.

Shapes: B batch, T encoder tokens, X plain-text tokens, A answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.inputs.order import groups_within
from glotfuse.inputs.padding import IGNORED, pad_and_mask, pad_rows
from glotfuse.inputs.prompts import Prompt
from glotfuse.inputs.reader import InputReader


@dataclass(frozen=True)
class PreparedExample:
    """One example in token ids."""

    encoder_ids: list[int]
    """What the encoder reads."""
    text_ids: list[int] = field(default_factory=list)
    """What the LM reads after the span, in span-plus-text mode."""
    answer_ids: list[int] = field(default_factory=list)
    """What the LM learns to say, its end included."""
    truncated: bool = False
    """Whether text was cut."""
    column_ids: tuple[list[int], ...] = ()
    """What the encoder reads of each column by itself, for a probe where the template has several."""
    head_ids: tuple[int, ...] = ()
    """A prompt head of its own, for training with many instructions; none takes the model's."""


@dataclass(frozen=True)
class Batch:
    """Right-padded tensors of B examples."""

    encoder_ids: Tensor
    """(B,T)."""
    encoder_mask: Tensor
    """(B,T), true for real tokens."""
    text_ids: Tensor
    """(B,X), padded with -100; X is zero without span-plus-text."""
    answer_ids: Tensor
    """(B,A), padded with -100; A is zero at inference."""
    head_ids: Tensor | None = None
    """(B,C), prompt heads of the rows' own, padded with -100; None where all have the model's."""


def split_rows(inputs: Mapping[str, Tensor], max_tokens: int) -> list[dict[str, Tensor]]:
    """Cuts a training batch into parts of at most so many tokens, without the padding that a part does not need.

    Args:
        inputs: What `training_inputs` makes: (B,T), (B,T), (B,X), (B,1+A) and sometimes (B,C).
        max_tokens: Most tokens of a part, as many as its longest row has times its rows: those of the encoder, and what
            the LM reads beside the span.
    """
    mask, text, labels = inputs["encoder_mask"], inputs["text_ids"], inputs["labels"]
    heads = inputs.get("head_ids")
    read = mask.sum(1) + (text != IGNORED).sum(1) + (labels != IGNORED).sum(1)
    lengths = (read if heads is None else read + (heads != IGNORED).sum(1)).tolist()
    parts = []
    for chosen in groups_within(lengths, max_tokens, len(lengths)):
        rows = torch.tensor(sorted(chosen), device=mask.device)
        longest = int(mask[rows].sum(1).max())
        parts.append(
            ({} if heads is None else {"head_ids": heads[rows]})
            | {
                "encoder_ids": inputs["encoder_ids"][rows, :longest],
                "encoder_mask": mask[rows, :longest],
                "text_ids": text[rows, : int((text[rows] != IGNORED).sum(1).max()) if text.shape[1] else 0],
                "labels": labels[rows, : 1 + int((labels[rows] != IGNORED).sum(1).max())],
            }
        )
    return parts


def prepare(
    reader: InputReader,
    prompt: Prompt,
    rows: Sequence[Mapping[str, str]],
    *,
    answers: Sequence[str] | None = None,
    language: str | None = None,
    columns: bool = False,
) -> list[PreparedExample]:
    """Tokenizes rows of one language, with their answers where given (training), and each column alone if wanted."""
    known = {answer: [*prompt.answer_ids(answer), *prompt.end_ids] for answer in set(answers or ())}
    prepared = []
    alone = reader.read_columns(rows, language) if columns else [()] * len(rows)
    for index, (row, (ids, cut), each) in enumerate(zip(rows, reader.read(rows, language), alone, strict=True)):
        text_ids, text_cut = reader.read_plain(row, prompt)
        answer = known[answers[index]] if answers is not None else []
        prepared.append(PreparedExample(ids, text_ids, answer, cut or text_cut, each))
    return prepared


def collate(examples: Sequence[PreparedExample], pad_token_id: int, *, answers: bool = False) -> Batch:
    """Pads examples at the right into one batch, with their answers for training only."""
    encoder_ids, encoder_mask = pad_and_mask([e.encoder_ids for e in examples], pad_token_id)
    return Batch(
        encoder_ids=encoder_ids,
        encoder_mask=encoder_mask,
        text_ids=pad_rows([e.text_ids for e in examples]),
        answer_ids=pad_rows([e.answer_ids if answers else [] for e in examples]),
    )


def training_inputs(examples: Sequence[PreparedExample], pad_token_id: int) -> dict[str, Tensor]:
    """A training batch by the names of `FusedModel.forward`'s arguments."""
    batch = collate(examples, pad_token_id, answers=True)
    own = any(example.head_ids for example in examples)
    return ({"head_ids": pad_rows([list(example.head_ids) for example in examples])} if own else {}) | {
        "encoder_ids": batch.encoder_ids,
        "encoder_mask": batch.encoder_mask,
        "text_ids": batch.text_ids,
        "labels": F.pad(batch.answer_ids, (1, 0), value=IGNORED),
    }
