"""Data sets of the Hugging Face hub, read through the `datasets` library.

`datasets` runs no code of a data set any more (since 4.0), so every repository here must hold plain data
files. Where its card has a `configs` entry, a configuration is asked for by name. Where the original is a
script, its automatic conversion lies at the revision `refs/convert/parquet`; that has no card, so it has no
names either, and its files are asked for by their paths (`CONVERTED`).

What is tested, through `datasets` itself: every named task, from folders laid out as its repositories are and
from a small hub on this machine. What the hub holds today is not: names, revisions and paths in `named.py`
were taken from documentation and public code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from glotfuse.errors import DataError, did_you_mean
from glotfuse.tasks.rows import Row, Table

HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""The usual split names on the hub, by split."""
CONVERTED = "{config}/{split}/*.parquet"
"""Where a split lies in the hub's automatic conversion. One of which only a part was converted lies under
`partial-` and its name; it is not matched, for rows would be missing unseen."""
_NUM_LISTED = 12


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
        data_files: Pattern of a split's files, with {config} and {split}, for a repository without a card that
            names its configurations.
        folder: Where the repository lies as it was downloaded; the hub is then not asked. None for the hub.
    """

    repo: str
    configs: Mapping[str, str | None] | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: dict(HUB_SPLITS))
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    revision: str | None = None
    data_files: str | None = None
    folder: Path | None = None

    def languages(self) -> Mapping[str, str | None]:
        """Returns the configuration of each language.

        Raises:
            DataError: If the repository has to be asked for it and cannot be read.
        """
        if self.configs is not None:
            return self.configs
        self._check_folder(None)
        place, revision = self._place()
        names = _ask(place, lambda: _config_names(place, revision), self._advice())
        return {name: name for name in names if name != "default"}

    def read(self, split: str, config: str | None, columns: Sequence[str]) -> Table:
        """Opens one split of one configuration; the table has the task's column names.

        Raises:
            DataError: If the split cannot be loaded, with what was found in its place, or lacks a column.
        """
        from datasets import load_dataset

        theirs = self.splits[split]
        place, revision = self._place()
        at = f"@{revision}" if revision else ""
        name = "/".join(part for part in (f"{place}{at}", config, theirs) if part)
        files = self.data_files.format(config=config or "default", split=theirs) if self.data_files else None
        self._check_folder(files)
        wanted: dict[str, Any] = {"data_files": {theirs: files}} if files else {"name": config}
        data = _ask(name, lambda: load_dataset(place, split=theirs, revision=revision, **wanted), self._advice())
        their_columns = {column: self.columns.get(column, column) for column in columns}
        Table(name, data.column_names, ()).require(their_columns.values())
        return Table(name, list(columns), self._rows(data, their_columns))

    def _place(self) -> tuple[str, str | None]:
        return (self.repo, self.revision) if self.folder is None else (str(self.folder), None)

    def _download(self, folder: str) -> str:
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repo} --repo-type dataset{revision} --local-dir {folder}"

    def _advice(self) -> str:
        if self.folder is not None:
            return f"Download the repository as a whole, into an empty folder: {self._download(str(self.folder))}"
        if Path(self.repo).is_dir():
            return "Compare the names with the folder's card."
        download = self._download(f"FOLDER/{self.repo}")
        return f"Without a network, point the task at a local copy of the data with path=FOLDER, made by: {download}"

    def _check_folder(self, files: str | None) -> None:
        """Looks into a local copy before `datasets` does, whose own errors do not say what is there.

        Raises:
            DataError: If the folder is missing, or holds no file of the pattern.
        """
        if self.folder is None or (self.folder.is_dir() and (files is None or any(self.folder.glob(files)))):
            return
        if not self.folder.is_dir():
            files, found = "its files", "no such folder"
        else:
            parquet = {path.parent.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.parquet")}
            found = _listed(sorted(parquet) or sorted(path.name for path in self.folder.iterdir())) or "an empty folder"
        raise DataError(f"hub data set {self.repo}: expected {files} in {self.folder}, found {found}. {self._advice()}")

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

    def lies_in(self, root: Path) -> bool:
        """Returns whether `root` holds one of the repositories, as owner/name below it."""
        return any((root / data.repo).is_dir() for data in self.datasets)

    def at(self, root: Path) -> HubSource:
        """Returns the same data as it lies in `root`, each repository as it is in owner/name."""
        return HubSource(tuple(replace(data, folder=root / data.repo) for data in self.datasets))

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
def _config_names(place: str, revision: str | None) -> tuple[str, ...]:
    from datasets import get_dataset_config_names

    return tuple(sorted(get_dataset_config_names(place, revision=revision)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
    return ", ".join(names[:_NUM_LISTED]) + more


def _named(value: object, names: Sequence[str]) -> object:
    """Returns an integer label's name; -1 is the hub's mark for a hidden label."""
    if not names or not isinstance(value, int):
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value


def _ask(name: str, request: Callable[[], Any], advice: str) -> Any:
    """Runs a request to the hub; whatever fails there is told as one kind of error."""
    try:
        return request()
    except Exception as error:  # the library raises a different type for each cause; the cause is kept
        found = str(error).strip() or type(error).__name__
        raise DataError(
            f"hub data set {name}: expected to load it, found {type(error).__name__}: {found} {advice}"
        ) from error
