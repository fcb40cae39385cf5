"""Rows on their way to examples: what a source yields, and the checks every row passes.

All sources (files of any format, hub data sets) yield the same `Row` and `Problem` objects, so that a text
or label is judged, counted and reported in one place.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import NoneType

from glotfuse.errors import DataError, did_you_mean
from glotfuse.tasks.examples import Example

NUM_SHOWN = 10
"""How many faults an error or report spells out; the rest is counted."""


class Fault(StrEnum):
    """Why a row cannot become an example; the values are the counters of `LoadReport`."""

    EMPTY = "empty"
    UNKNOWN_LABEL = "unknown_label"
    MISSING_LABEL = "missing_label"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source: its number there and its values by column."""

    number: int
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one row. A tolerated one is counted and left out even where faults are errors."""

    fault: Fault
    row: int
    column: str | None
    message: str
    tolerated: bool = False

    def describe(self, source: str) -> str:
        """Returns the fault with file, row and column."""
        column = "" if self.column is None else f", column {printable(self.column)!r}"
        return f"{source}, row {self.row}{column}: {self.message}"


@dataclass(frozen=True)
class Table:
    """An opened source: its name in messages, all its columns, and its rows, read when iterated.

    What its reader had to guess about the source stands in `notes`.
    """

    name: str
    columns: Sequence[str]
    rows: Iterable[Row | Problem]
    notes: tuple[str, ...] = ()

    def require(self, columns: Iterable[str]) -> None:
        """Checks that all `columns` are there.

        Raises:
            DataError: Naming the missing ones, the columns found and the nearest name.
        """
        missing = [column for column in columns if column not in self.columns]
        if not missing:
            return
        found = [printable(column) for column in self.columns]
        hints = "".join(did_you_mean(column, found) for column in missing)
        if len(found) == 1 and any(mark in found[0] for mark in ";,\t|"):
            hints += " The header is one cell: is the file's separator the one its extension says?"
        raise DataError(
            f"{self.name}: expected a column {', '.join(map(repr, missing))}, found the columns "
            f"{', '.join(map(repr, found))}.{hints} Rename the column or set the task's column names; where the "
            "file begins with data, add a line with the names."
        )


@dataclass
class ReadResult:
    """The examples of one table, with counts by fault and the wording of the first faults.

    Attributes:
        examples: The rows that passed.
        num_rows: All rows.
        num_duplicates: Examples that repeat an earlier one.
        counts: Rows left out, each counted once, under its first fault.
        num_faulty: Rows with a fault that is not tolerated.
        num_faults: Such faults; a row may have several.
        shown: The first few of them, in words.
    """

    examples: list[Example] = field(default_factory=list)
    num_rows: int = 0
    num_duplicates: int = 0
    counts: Counter[Fault] = field(default_factory=Counter)
    num_faulty: int = 0
    num_faults: int = 0
    shown: list[str] = field(default_factory=list)

    def add_faults(self, problems: Sequence[Problem], source: str) -> None:
        """Counts one row's faults."""
        self.counts[problems[0].fault] += 1
        untolerated = [problem for problem in problems if not problem.tolerated]
        self.num_faulty += bool(untolerated)
        self.num_faults += len(untolerated)
        self.shown += [problem.describe(source) for problem in untolerated][: NUM_SHOWN - len(self.shown)]


def read_examples(
    table: Table,
    language: str,
    text_columns: Sequence[str],
    label_column: str | None,
    label_words: Mapping[str, str],
) -> ReadResult:
    """Turns the rows of `table` into examples; faulty rows are counted and described, never lost."""
    table.require([*text_columns, *([label_column] if label_column else [])])
    result = ReadResult()
    seen: set[tuple[str | None, ...]] = set()
    for row in table.rows:
        result.num_rows += 1
        if isinstance(row, Problem):
            result.add_faults([row], table.name)
            continue
        problems = [problem for column in text_columns if (problem := _text_problem(row, column))]
        label: str | None = None
        if label_column:
            label, problem = _label(row, label_column, label_words)
            problems += [problem] if problem else []
        if problems:
            result.add_faults(problems, table.name)
            continue
        fields = {column: str(row.values[column]) for column in text_columns}
        key = (*fields.values(), label)
        result.num_duplicates += key in seen
        seen.add(key)
        result.examples.append(Example(fields, label, language, table.name, row.number))
    return result


def label_text(value: object) -> str:
    """Returns a label value of any type as the text used in the label map; an absent one as ''.

    Blanks around it are no part of it, and letters with accents have one form (NFC), however they were typed.
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ("" if value != value else str(value))
    return "" if value is None else unicodedata.normalize("NFC", str(value)).strip()


def look(label: str) -> str:
    """Returns what labels have in common that are hard to tell apart: case, width, blanks, invisible characters."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    return " ".join(visible.casefold().split())


def printable(text: str) -> str:
    """Returns `text` with bytes that were not UTF-8 written out, so that any terminal can print it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str) -> str:
    """Returns the beginning of `text` in quotes, with invisible characters written out."""
    return printable(repr(text[:60] + ("..." if len(text) > 60 else "")))


def check_header(name: str, header: Sequence[str]) -> None:
    """Checks that no column name occurs twice; columns without a name are never read, so there may be several.

    Raises:
        DataError: Naming those that do.
    """
    repeated = sorted({printable(column) for column in header if column and header.count(column) > 1})
    if repeated:
        raise DataError(
            f"{name}: expected distinct column names, found {', '.join(map(repr, repeated))} twice. Rename one of them."
        )


def blank_line(number: int, tolerated: bool = False) -> Problem:
    """The fault of a line with nothing in it."""
    return Problem(Fault.EMPTY, number, None, "expected a row, found a blank line", tolerated)


def _text_problem(row: Row, column: str) -> Problem | None:
    value = row.values.get(column)
    if value is None:
        return Problem(Fault.EMPTY, row.number, column, "expected a text, found no value")
    if not isinstance(value, str):
        message = f"expected a text, found {type(value).__name__} {shortened(str(value))}"
        return Problem(Fault.MALFORMED, row.number, column, message)
    if problem := _encoding_problem(value, row.number, column):
        return problem
    # isprintable() is false for zero-width characters: a text of those alone has nothing to read
    if not any(character.isprintable() and not character.isspace() for character in value):
        return Problem(Fault.EMPTY, row.number, column, "expected a text, found an empty one")
    return None


def _encoding_problem(value: str, row: int, column: str) -> Problem | None:
    if "\0" in value:
        message = f"expected a text, found a NUL character at character {value.index(chr(0)) + 1}; remove it"
        return Problem(Fault.MALFORMED, row, column, message)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # files are decoded with surrogateescape: byte 0xE9 arrives as U+DCE9
        code = ord(value[error.start])
        found = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"surrogate U+{code:04X}"
        message = f"expected UTF-8, found {found} at character {error.start + 1}; save the file as UTF-8"
        return Problem(Fault.MALFORMED, row, column, message)
    return None


def read_name(row: Row, column: str, what: str, missing: Fault) -> tuple[str, Problem | None]:
    """Returns a label, or another value of few words, as text; '' with the fault if there is none that can be used."""
    value = row.values.get(column)
    if not isinstance(value, (str, int, float, Decimal, NoneType)):
        message = f"expected {what}, found {type(value).__name__} {shortened(str(value))}"
        return "", Problem(Fault.MALFORMED, row.number, column, message)
    name = label_text(value)
    if not name:
        return "", Problem(missing, row.number, column, f"expected {what}, found none")
    problem = _encoding_problem(name, row.number, column)
    return ("", problem) if problem else (name, None)


def _label(row: Row, column: str, words: Mapping[str, str]) -> tuple[str | None, Problem | None]:
    raw, problem = read_name(row, column, "a label", Fault.MISSING_LABEL)
    if problem:
        return None, problem
    if raw in words:
        return words[raw], None
    known = list(words)
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    message = f"unknown label {raw[:60]!r}; known labels: {listed}.{did_you_mean(raw[:60], known)}"
    return None, Problem(Fault.UNKNOWN_LABEL, row.number, column, message)
