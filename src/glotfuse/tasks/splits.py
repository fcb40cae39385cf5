"""The three splits, the names they go by, and what a task asks of a source of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from glotfuse.errors import DataError, did_you_mean
from glotfuse.tasks.rows import Table

SPLIT_NAMES = {"train": ("train",), "dev": ("dev", "validation", "val"), "test": ("test",)}
"""File names of each split. There is one name for test, and nothing else stands in for it."""


def split_name(name: str) -> str:
    """Returns train, dev or test for any of their names.

    Raises:
        DataError: If `name` is none of them.
    """
    for split, names in SPLIT_NAMES.items():
        if name in names:
            return split
    known = [name for names in SPLIT_NAMES.values() for name in names]
    raise DataError(f"split: expected one of {', '.join(known)}, found {name!r}.{did_you_mean(name, known)}")


class Source(Protocol):
    """Where a task's rows come from: files or a hub data set."""

    def languages(self, split: str) -> list[str]:
        """Returns the languages that have data in `split` (train, dev or test)."""

    def read(self, split: str, language: str, columns: Sequence[str]) -> Table:
        """Opens the rows of one split in one language; `columns` are those that will be used."""

    def explain(self, split: str) -> str:
        """Returns where data for `split` was looked for and what is there instead, for an error."""
