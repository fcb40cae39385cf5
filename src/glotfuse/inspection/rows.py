"""Which rows of a task are inspected: the same sentences in every language where the data is parallel.

Rows of two languages count as parallel when their files have as many rows and rows of the same number have the same
label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glotfuse.errors import DataError
from glotfuse.tasks import Example, Split, Task, sample

_SEED = 0


@dataclass(frozen=True)
class ChosenRows:
    """Rows by language."""

    pivot: str
    """The training language, which translations are compared with."""
    rows: Mapping[str, Sequence[Example]]
    """Rows of each language, the pivot first where it has data; of parallel languages in the same order."""
    parallel: tuple[str, ...]
    """Languages whose rows are translations of the pivot's, the pivot left out."""
    notes: tuple[str, ...]
    """Why some are not."""


def choose_rows(
    task: Task, split: str, languages: Sequence[str] | None = None, max_examples: int | None = None
) -> ChosenRows:
    """Loads a split and chooses rows, balanced over the labels.

    Args:
        task: The task; its training language is the pivot.
        split: test or dev.
        languages: Codes; None takes all that the task has. The pivot always comes along where it has data.
        max_examples: At most so many rows per language; None takes all.

    Raises:
        DataError: A language has no data in this split.
    """
    available = task.languages(split, evaluation=True)
    task.check_measured(split, languages or ())
    pivot = task.train_language
    wanted = [code for code in (languages or available) if code != pivot]
    codes = [*([pivot] if pivot in available else []), *wanted]
    if not codes:
        raise DataError(f"Expected {split} data of {task.name} in some language; found none.")
    loaded = {code: task.load(split, code, evaluation=True) for code in codes}
    parallel = [code for code in wanted if pivot in loaded and _parallel(loaded[pivot], loaded[code])]
    by_row = {code: {row.row: row for row in loaded[code].examples} for code in [pivot, *parallel] if code in loaded}
    common = set.intersection(*(set(found) for found in by_row.values())) if parallel else set()
    if not common:
        parallel = []
    rows: dict[str, Sequence[Example]] = {}
    for code in codes:
        examples = loaded[code].examples
        if code == pivot and parallel:
            examples = [row for row in examples if row.row in common]
        if code in parallel:
            rows[code] = [by_row[code][row.row] for row in rows[pivot]]
        else:
            rows[code] = sample(examples, max_examples, _SEED) if max_examples else examples
    return ChosenRows(pivot, rows, tuple(parallel), tuple(_notes(pivot, codes, parallel, split)))


def _parallel(pivot: Split, other: Split) -> bool:
    if pivot.report.rows != other.report.rows:
        return False
    labels = {row.row: row.label for row in pivot.examples}
    common = [row for row in other.examples if row.row in labels]
    return bool(common) and all(row.label == labels[row.row] for row in common)


def _notes(pivot: str, codes: Sequence[str], parallel: Sequence[str], split: str) -> list[str]:
    others = [code for code in codes if code != pivot]
    if pivot not in codes:
        return [f"The training language {pivot} has no {split} data, so translations are not compared."]
    if not others:
        return [f"Only {pivot} has {split} data, so translations are not compared."]
    apart = [code for code in others if code not in parallel]
    if not apart:
        return []
    return [
        f"Rows of {', '.join(apart)} are not parallel to those of {pivot} (other numbers of rows, or other labels "
        "in rows of the same number): no alignment is measured for them."
    ]
