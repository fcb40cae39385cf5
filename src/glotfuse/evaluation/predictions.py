"""Saved predictions of a recipe's runs, row by row, and whether rows of languages are translations of each other.

Legend: S seeds, N rows of a language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glotfuse.errors import DataError
from glotfuse.evaluation.metrics import INVALID
from glotfuse.languages.names import name_of
from glotfuse.run_folder import predictions_file


@dataclass(frozen=True)
class Predictions:
    """One recipe's predictions in one language."""

    rows: list[int]
    """(N,) row numbers."""
    gold: NDArray[np.int64]
    """(N,)."""
    predicted: NDArray[np.int64]
    """(S,N)."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(S,N)."""
        right: NDArray[np.bool_] = self.predicted == self.gold
        return right


def read_predictions(runs: Sequence[Path], split: str, code: str, labels: Sequence[str]) -> Predictions:
    """Reads the predictions of a recipe's runs in one language, ordered by row.

    Args:
        runs: Run folders, one for each seed.
        split: test or dev.
        code: The language.
        labels: Label words, in the order of their numbers.

    Raises:
        DataError: A run has none, damaged ones, or other rows than the first.
    """
    index = {label: number for number, label in enumerate(labels)}
    rows: list[int] = []
    gold: list[int] = []
    predicted = []
    for run in runs:
        path = predictions_file(run, split, code)
        try:
            lines = sorted(
                (json.loads(line) for line in path.read_text("utf8").splitlines()), key=lambda line: int(line["row"])
            )
            found = [int(line["row"]) for line in lines]
            answers = [index[line["gold"]] for line in lines]
            predicted.append([index.get(line["predicted"], INVALID) for line in lines])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"Expected predictions in {path}; found: {error!r}. Measure the run again.") from None
        if rows and (rows, gold) != (found, answers):
            raise DataError(f"Expected the same rows of {code} in all seeds; {run} has others. Measure it again.")
        rows, gold = found, answers
    return Predictions(rows, np.array(gold), np.array(predicted))


def check_same_rows(code: str, by_recipe: Mapping[str, Predictions]) -> None:
    """Refuses recipes that were measured on different rows of a language.

    Raises:
        DataError: Naming two of them.
    """
    (first_name, first), *others = by_recipe.items()
    for name, other in others:
        if first.rows != other.rows or (first.gold != other.gold).any():
            raise DataError(
                f"Expected the same rows of {name_of(code)} ({code}) in {first_name} and {name}; they were measured "
                "on different ones. Measure both with the same data and max_examples."
            )


def row_ids(answers: Mapping[str, Predictions]) -> dict[str, list[int]] | None:
    """Row numbers by language where the rows are translations of each other, else None.

    They are taken for translations where all languages have the same row numbers with the same gold labels.
    """
    first, *others = answers.values()
    same = others and all(first.rows == other.rows and (first.gold == other.gold).all() for other in others)
    return {code: found.rows for code, found in answers.items()} if same else None
