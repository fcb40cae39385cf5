"""Data sets of the Hugging Face hub, read through the `datasets` library.

`datasets` runs no code of a data set any more (since 4.0), so every repository here must hold plain data
files (Parquet, JSON lines, TSV with a `configs` entry in its card); where the original is a script, its
automatic conversion lies at the revision `refs/convert/parquet`.

What is tested: configurations, splits, class labels, plain integer labels, renamed columns and all errors,
with local folders that hold data as such a repository does, and with a replaced `load_dataset`. Downloading
itself is not tested, and the names in `named.py` were taken from documentation and public code only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from glotfuse.errors import DataError, did_you_mean
from glotfuse.tasks.rows import Row, Table

HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""The usual split names on the hub, by split."""


@dataclass(frozen=True)
class HubDataset:
    """One repository and how its configurations, splits and columns are named.

    Attributes:
        repo: Repository id, or a local folder that holds the same files.
        configs: Configuration of each language (None for a repository without configurations). Without the
            mapping, every configuration is a language code, and the hub is asked for their names.
        splits: The repository's name of each split it has; a split that is not named does not exist.
        columns: The repository's column for a column of the task, where they differ.
        label_names: By column of the task, names of the integers 0, 1, ... where the repository has none.
        revision: Commit, tag or branch; None for the newest.
    """

    repo: str
    configs: Mapping[str, str | None] | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: dict(HUB_SPLITS))
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    revision: str | None = None

    def languages(self) -> Mapping[str, str | None]:
        """Returns the configuration of each language."""
        if self.configs is not None:
            return self.configs
        return {name: name for name in _config_names(self.repo, self.revision)}

    def read(self, split: str, config: str | None, columns: Sequence[str]) -> Table:
        """Opens one split of one configuration; the table has the task's column names."""
        from datasets import load_dataset

        at = f"@{self.revision}" if self.revision else ""
        name = "/".join(part for part in (f"{self.repo}{at}", config, self.splits[split]) if part)
        data = _ask(
            name,
            lambda: load_dataset(self.repo, name=config, split=self.splits[split], revision=self.revision),
        )
        theirs = {column: self.columns.get(column, column) for column in columns}
        Table(name, data.column_names, ()).require(theirs.values())
        return Table(name, list(columns), self._rows(data, theirs))

    def _rows(self, data: Any, theirs: Mapping[str, str]) -> Iterator[Row]:
        # integers are named by what is stored with the data, or else by label_names
        names = {
            ours: getattr(data.features[column], "names", None) or self.label_names.get(ours, ())
            for ours, column in theirs.items()
        }
        number = 0
        for batch in data.select_columns(sorted(set(theirs.values()))).iter(batch_size=1000):
            for values in zip(*(batch[column] for column in theirs.values()), strict=True):
                yield Row(number, {o: _named(v, names[o]) for o, v in zip(theirs, values, strict=True)})
                number += 1


@dataclass(frozen=True)
class HubSource:
    """One or several hub repositories; for a language that several have, the first one counts."""

    datasets: Sequence[HubDataset]

    def languages(self, split: str) -> list[str]:
        """Returns the languages that have data in `split`, sorted."""
        found = {language for data in self.datasets if split in data.splits for language in data.languages()}
        return sorted(found)

    def read(self, split: str, language: str, columns: Sequence[str]) -> Table:
        """Opens the rows of one split in one language."""
        for data in self.datasets:
            if split in data.splits and language in (configs := data.languages()):
                return data.read(split, configs[language], columns)
        known = self.languages(split)
        raise DataError(
            f"hub: expected a language with {split} data, found {language!r}.{did_you_mean(language, known)} "
            f"Known: {', '.join(known)}."
        )

    def explain(self, split: str) -> str:
        """Returns the repositories and the splits they have."""
        return "; ".join(f"{data.repo} has the splits {', '.join(data.splits)}" for data in self.datasets)


@lru_cache
def _config_names(repo: str, revision: str | None) -> tuple[str, ...]:
    from datasets import get_dataset_config_names

    names: list[str] = _ask(repo, lambda: get_dataset_config_names(repo, revision=revision))
    return tuple(name for name in sorted(names) if name != "default")


def _named(value: object, names: Sequence[str]) -> object:
    """Returns an integer label's name; -1 is the hub's mark for a hidden label."""
    if not names or not isinstance(value, int):
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value


def _ask(name: str, request: Callable[[], Any]) -> Any:
    """Runs a request to the hub; whatever fails there is told as one kind of error."""
    try:
        return request()
    except Exception as error:  # the library raises a different type for each cause; the cause is kept
        found = str(error).strip() or type(error).__name__
        raise DataError(
            f"hub data set {name}: expected to load it, found {type(error).__name__}: {found} "
            "Without a network, point the task at a local copy of the data with path=."
        ) from error
