"""Unlabelled text as training data: the encoder reads the first part of a document, the LM continues it.

The cut is drawn at random between two bounds in LM tokens, as LangBridge does (Yoon et al. 2024, arXiv 2401.10695).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from glotfuse.errors import DataError
from glotfuse.inputs import InputReader, PreparedExample
from glotfuse.prompts import Prompt

_PLAIN = {"add_special_tokens": False, "split_special_tokens": True}
"""Names of special tokens in a text are text."""


class Continuations(NamedTuple):
    """Prepared documents."""

    examples: list[PreparedExample]
    """One per document that is long enough."""
    num_short: int
    """Documents left out because they are too short to cut."""


def prepare_continuations(
    reader: InputReader,
    prompt: Prompt,
    texts: Sequence[str],
    *,
    cut: tuple[int, int],
    max_answer_tokens: int,
    seed: int,
    keep_text: bool = False,
) -> Continuations:
    """Cuts and tokenises documents.

    Args:
        reader: Reads the first parts.
        prompt: The prompt between the parts.
        texts: Documents.
        cut: Least and most LM tokens of the first part.
        max_answer_tokens: Most LM tokens of the second; an end follows only where the document ends.
        seed: Of the cuts; document i's cut depends on seed and i alone.
        keep_text: Also keep the LM's tokens of the first parts, for a teacher that reads them.

    Raises:
        DataError: No document is long enough, or the bounds are the wrong way round.
    """
    low, high = cut
    if low > high:
        raise DataError(f"Expected cut bounds with the lower first; found {low} and {high}.")
    column = reader.cut_column
    rows, answers, plain = [], [], []
    for index, text in enumerate(texts):
        encoded = prompt.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        if len(offsets) <= low:
            continue
        position = random.Random(f"{seed}:{index}").randint(low, min(high, len(offsets) - 1))
        start = offsets[position][0]
        ids = prompt.answer_ids(text[start:])
        whole = len(ids) <= max_answer_tokens
        rows.append({column: text[:start]})
        plain.append(prompt.tokenizer(text[:start], **_PLAIN)["input_ids"] if keep_text else [])
        answers.append([*ids[:max_answer_tokens], *(prompt.end_ids if whole else ())])
    if not rows:
        raise DataError(
            f"Expected documents of more than {low} LM tokens; found none among {len(texts)}. Lower training.cut."
        )
    prepared = [
        PreparedExample(ids, text_ids, answer, truncated)
        for (ids, truncated), text_ids, answer in zip(reader.read(rows), plain, answers, strict=True)
    ]
    return Continuations(prepared, len(texts) - len(prepared))
