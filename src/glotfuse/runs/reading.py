"""What a model writes in English about texts of many languages, beside a copy and the LM that reads the text itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from glotfuse.api import FusedLM
from glotfuse.errors import DataError
from glotfuse.evaluation.reading import ReadingScores, reading_scores
from glotfuse.model.assembly import text_reader
from glotfuse.progress import Bar
from glotfuse.tasks import Example, Task

INSTRUCTION = "Translate the text into English."
_MOST_TOKENS = 40


@dataclass(frozen=True)
class Reading:
    """One language."""

    code: str
    texts: list[str]
    """N texts."""
    references: list[str]
    """The English rows."""
    outputs: list[str]
    """What the fused model wrote."""
    scores: ReadingScores
    """Of the fused model."""
    copy: ReadingScores
    """Of the texts themselves."""
    plain: ReadingScores
    """Of the LM that reads the text itself."""


def parallel_rows(task: Task, count: int, seed: int, split: str = "test") -> dict[str, list[Example]]:
    """The same `count` rows of every language of a parallel task, drawn from those that all have."""
    found = {code: {e.row: e for e in task.load(split, code).examples} for code in task.languages(split)}
    shared = sorted(set.intersection(*(set(rows) for rows in found.values())))
    if not shared:
        raise DataError(f"Expected rows that all languages of {task.name} have; found none.")
    chosen = sorted(random.Random(seed).sample(shared, min(count, len(shared))))
    return {code: [rows[i] for i in chosen] for code, rows in found.items()}


def read_languages(
    model: FusedLM, task: Task, count: int, *, seed: int = 0, languages: Sequence[str] | None = None
) -> list[Reading]:
    """Has the model write English for the same rows of every language but English.

    Args:
        model: A model that reads, such as one of the package.
        task: Parallel, with one column of text.
        count: Rows per language.
        seed: Of their choice.
        languages: Which, None for all.
    """
    rows = parallel_rows(task, count, seed)
    (column,) = task.text_columns
    references = [row.fields[column] for row in rows[task.train_language]]
    codes = [code for code in languages or rows if code != task.train_language]
    texts = [row.fields[column] for code in codes for row in rows[code]]
    written: list[list[str]] = []
    with Bar("reading", 2 * len(texts), "texts") as bar:
        for reader in (model, text_reader(FusedLM, model, INSTRUCTION)):
            outputs: list[str] = []
            for start in range(0, len(texts), 32):
                part = texts[start : start + 32]
                asked = INSTRUCTION if reader is model else None
                outputs += reader.generate(part, instruction=asked, max_new_tokens=_MOST_TOKENS, batch_size=32)
                bar.advance(len(part))
            written.append(outputs)
    found = []
    for place, code in enumerate(codes):
        own = slice(place * len(references), (place + 1) * len(references))
        scores = [reading_scores(each[own], references, interval=False) for each in (*written, texts)]
        fused, plain, copied = scores
        found.append(Reading(code, texts[own], references, written[0][own], fused, copied, plain))
    return found
