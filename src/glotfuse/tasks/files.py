"""The user's own files: where the splits and languages lie in a folder, and which file holds what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glotfuse.errors import DataError
from glotfuse.tasks.decoding import SPREADSHEET_ADVICE, SPREADSHEETS
from glotfuse.tasks.formats import FORMATS, PACKED, extension_of, read_table
from glotfuse.tasks.rows import Fault, Problem, Row, Table, read_name, shortened
from glotfuse.tasks.splits import SPLIT_NAMES, split_name

SHARED = None
"""Key of a file that holds every language of its split."""


@dataclass(frozen=True)
class Layout:
    """A way to lay data files out in a folder, written as a path with {language} and {split}."""

    template: str

    def match(self, path: str) -> tuple[str, str | None] | None:
        """Returns the split and the language (None: shared) that a path in the folder stands for, if any."""
        names = "|".join(name for names in SPLIT_NAMES.values() for name in names)
        pattern = re.escape(self.template).replace(r"\{split\}", f"(?P<split>{names})")
        pattern = pattern.replace(r"\{language\}", "(?P<language>[^/]+?)")
        found = re.fullmatch(pattern + rf"\.[^./]+(?i:{re.escape(PACKED)})?", path)
        if found is None:
            return None
        language = found.groupdict().get("language", SHARED)
        is_split = language is not None and any(language in names for names in SPLIT_NAMES.values())
        return None if is_split else (split_name(found["split"]), language)


LAYOUTS = (
    Layout("{language}/{split}"),
    Layout("{split}/{language}"),
    Layout("{split}"),
    Layout("{language}_{split}"),
    Layout("{language}.{split}"),
)
"""The accepted layouts, each followed by the extension of a format."""


@dataclass(frozen=True)
class FileSource:
    """Data files in a folder of an accepted layout, or named one by one.

    Attributes:
        path: A folder, or a single file, which is then the training split.
        files: Instead of `path`: for each split a file, or a mapping from language to file.
        language_column: Column with each row's language, where files hold several; None if each holds one.
        default_language: The language of a file that names none.
        aliases: Language names used in the folder, with the code to use for them.
        plain_text: Whether .txt files count as data; they hold no labels.
    """

    path: Path | None = None
    files: Mapping[str, Path | Mapping[str, Path]] = field(default_factory=dict)
    language_column: str | None = None
    default_language: str = "eng_Latn"
    aliases: Mapping[str, str] = field(default_factory=dict)
    plain_text: bool = False

    def languages(self, split: str) -> list[str]:
        """Returns the languages that have data in `split`, sorted."""
        found = self._files(split)
        if SHARED not in found:
            return sorted(language for language in found if language)
        if self.language_column is None:
            return [self.default_language]
        table = self._open(found[SHARED], [self.language_column])
        languages: set[str] = set()
        num_rows = 0
        for row in table.rows:
            num_rows += 1
            if isinstance(row, Row):
                languages.add(_language(row, self.language_column)[0])
        if not num_rows:
            raise DataError(f"{table.name}: expected rows, found only a header. Add rows or remove the file.")
        return sorted(self.aliases.get(language, language) for language in languages if language)

    def read(self, split: str, language: str, columns: Sequence[str]) -> Table:
        """Opens the rows of one split in one language."""
        found = self._files(split)
        if language in found:
            return self._table(found[language], columns)
        if SHARED not in found or (self.language_column is None and language != self.default_language):
            raise DataError(f"expected {split} data in {language!r}, found none: {self.explain(split)}.")
        if self.language_column is None:
            return self._table(found[SHARED], columns)
        return self._only(self._open(found[SHARED], [*columns, self.language_column]), language)

    def explain(self, split: str) -> str:
        """Returns where data for `split` was looked for and what is there instead."""
        wanted = ", ".join(self._extensions())
        if self.path is None or self.path.is_file():
            named = ", ".join(self.files) or "train"
            return f"files are named only for: {named}"
        names = " or ".join(SPLIT_NAMES[split])
        tried = ", ".join(layout.template for layout in LAYOUTS)
        there = sorted(str(path.relative_to(self.path)) for path in self._candidates(any_extension=True))
        shown = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        return (
            f"in the folder {self.path}, the layouts {tried} were tried, with {names} for {{split}} and a "
            f"file of {wanted}; the folder holds: {shown or 'no files'}"
            + (f". {SPREADSHEET_ADVICE[:-1]}" if any(name.lower().endswith(SPREADSHEETS) for name in there) else "")
        )

    def _table(self, path: Path, columns: Sequence[str]) -> Table:
        if extension_of(path) == ".txt" and not self.plain_text:
            raise DataError(
                f"{path}: expected texts with labels, found a .txt file, which holds one text a line. Save the data as "
                ".tsv or .csv, or set label_column to none."
            )
        return read_table(path, columns)

    def _open(self, path: Path, columns: Sequence[str]) -> Table:
        table = self._table(path, columns)
        table.require([self.language_column] if self.language_column else [])
        return table

    def _only(self, table: Table, language: str) -> Table:
        column = self.language_column or ""

        def rows() -> Iterator[Row | Problem]:
            for row in table.rows:
                if isinstance(row, Problem):  # of unknown language, so reported with every language of the file
                    yield row
                    continue
                found, problem = _language(row, column)
                if problem:
                    yield problem
                elif self.aliases.get(found, found) == language:
                    yield row

        return replace(table, rows=rows())

    def _extensions(self) -> list[str]:
        return [extension for extension in FORMATS if extension != ".txt" or self.plain_text]

    def _candidates(self, any_extension: bool = False) -> list[Path]:
        if self.path is None or not self.path.is_dir():
            raise DataError(f"{self.path}: expected a folder of data files, found none. Check the path.")
        files = [path for pattern in ("*", "*/*") for path in sorted(self.path.glob(pattern)) if path.is_file()]
        visible = [p for p in files if not any(part.startswith(".") for part in p.relative_to(self.path).parts)]
        return [path for path in visible if any_extension or extension_of(path) in self._extensions()]

    def _files(self, split: str) -> dict[str | None, Path]:
        """Returns the files of one split by language; empty if there are none."""
        if self.path is None or self.path.is_file():
            named = {split_name(name): found for name, found in self.files.items()}
            found = named.get(split, self.path if split == "train" else None)
            if isinstance(found, Mapping):
                return {self.aliases.get(language, language): path for language, path in found.items()}
            return {SHARED: found} if found is not None else {}
        claims: dict[str, list[tuple[str | None, Path]]] = {}
        for path in self._candidates():
            relative = path.relative_to(self.path).as_posix()
            for layout in LAYOUTS:
                match = layout.match(relative)
                if match is not None and match[0] == split:
                    claims.setdefault(layout.template, []).append((match[1], path))
                    break
        return self._unambiguous(split, claims)

    def _unambiguous(
        self, split: str, claims: Mapping[str, Sequence[tuple[str | None, Path]]]
    ) -> dict[str | None, Path]:
        """Returns the files of the one layout in use; data that would be passed over unseen is an error."""
        if len(claims) > 1:
            first = "; ".join(f"{template}: {found[0][1]}" for template, found in claims.items())
            raise DataError(
                f"{self.path}: expected one layout for the {split} split, found {len(claims)} ({first}). "
                "Move the files that do not belong, or name the files of each split."
            )
        files: dict[str | None, Path] = {}
        for name, path in next(iter(claims.values()), ()):
            language = self.aliases.get(name, name) if name else SHARED
            if language in files:
                both = " and ".join(str(file.relative_to(self.path or "")) for file in (files[language], path))
                raise DataError(
                    f"{self.path}: expected one {split} file for {language or 'all languages'}, found {both}."
                    " Keep one of them."
                )
            files[language] = path
        return files


def _language(row: Row, column: str) -> tuple[str, Problem | None]:
    """Returns a row's language; '' with the fault if there is none that a file can be named after."""
    name, problem = read_name(row, column, "a language", Fault.MALFORMED)
    if not problem and (not name.isprintable() or set(name) & set("/\\") or not name.strip(".")):
        problem = Problem(Fault.MALFORMED, row.number, column, f"expected a language code, found {shortened(name)}")
    return ("", problem) if problem else (name, None)
