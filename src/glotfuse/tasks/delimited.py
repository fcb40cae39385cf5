"""CSV and TSV, as spreadsheets, notebooks and programs write them.

CSV is quoted; a blank after each separator of the header is taken for the file's style. TSV is read without quoting,
so that a quotation mark is part of the text, unless the file shows that a spreadsheet quoted it: see
`_spreadsheet_quoted`. Any other separator is recognised by the header, in which the wanted columns must be found.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from glotfuse.errors import DataError
from glotfuse.tasks.decoding import lines, read_text
from glotfuse.tasks.rows import Fault, Problem, Row, Table, blank_line, check_header, shortened

Record = tuple[int, list[str]]
"""Line on which a row begins, and its cells."""

_MAX_FIELD = 2**31 - 1  # the largest limit the csv module takes on every platform
_SEPARATORS = ",;\t|"
_ANNOUNCED = re.compile(r'"?sep=(.)"?[,;\t]*(?:\r\n|\r|\n)', re.IGNORECASE)
"""First line by which Excel is told the separator."""
_LINE_END = re.compile(r"[\r\n]")


def read_csv(path: Path, columns: Sequence[str]) -> Table:
    """Opens a .csv file: commas, or another separator that the header shows."""
    return _read(path, columns, ",")


def read_tsv(path: Path, columns: Sequence[str]) -> Table:
    """Opens a .tsv file: tabs, or another separator that the header shows."""
    return _read(path, columns, "\t")


def _read(path: Path, columns: Sequence[str], usual: str) -> Table:
    text = read_text(path)
    announced = _ANNOUNCED.match(text)
    text, first = (text[announced.end() :], 2) if announced else (text, 1)
    separator = str(announced[1]) if announced else _separator(text, columns, usual)
    notes: tuple[str, ...] = ()
    if separator == "\t":
        records, notes = _tab_records(path, text, first)
    else:
        records = _csv_records(path, text, first, separator)
    while records and not any(cell.strip() for cell in records[-1][1]):
        records.pop()
    if not records:
        raise DataError(f"{path}: expected data, found only separators. Add rows or remove the file.")
    header = [name.strip() for name in records[0][1]]
    check_header(str(path), header)
    return Table(str(path), header, _rows(header, records[1:]), notes)


def _separator(text: str, columns: Sequence[str], usual: str) -> str:
    """Returns the separator that finds most of the wanted columns in the header: in doubt, the usual one."""
    header = _LINE_END.split(text, maxsplit=1)[0]

    def num_found(separator: str) -> int:
        names = {name.strip().strip('"') for name in header.split(separator)}
        return sum(column in names for column in columns)

    candidates: list[str] = [usual, *_SEPARATORS]
    return max(candidates, key=num_found)


def _rows(header: Sequence[str], records: Iterable[Record]) -> Iterator[Row | Problem]:
    for number, cells in records:
        if len(cells) == len(header):
            yield Row(number, dict(zip(header, cells, strict=True)))
        elif not any(cell.strip() for cell in cells):
            yield blank_line(number)
        else:
            column = header[len(cells)] if len(cells) < len(header) else header[-1]
            message = (
                f"expected {len(header)} cells, found {len(cells)} ({shortened(' | '.join(cells))}): "
                "a separator or line break inside a text that is not in quotes?"
            )
            yield Problem(Fault.MALFORMED, number, column, message)


def _csv_records(path: Path, text: str, first: int, separator: str) -> list[Record]:
    header = _LINE_END.split(text, maxsplit=1)[0]
    records, fault = _parse(text, first, separator, spaced=f"{separator} " in header)
    if fault:
        line, found = fault
        raise DataError(
            f"{path}, row {line}: expected CSV (separators, quotes doubled inside quotes), found: {found}. "
            "Correct the quoting from this row on, or save the data as .tsv or .jsonl."
        )
    return records


def _parse(
    text: str, first: int, separator: str, spaced: bool = False
) -> tuple[list[Record], tuple[int, csv.Error] | None]:
    """Reads quoted rows up to the end or the first fault, which comes with the line of its row."""
    records: list[Record] = []
    # strict: otherwise a quote that is never closed swallows the rest of the file without a word
    lines_of = io.StringIO(text, newline="\n" if separator == "\t" else "")  # TSV: as `lines` splits them
    reader = csv.reader(lines_of, delimiter=separator, skipinitialspace=spaced, strict=True)
    limit = csv.field_size_limit(_MAX_FIELD)
    line = first
    try:
        for cells in reader:
            records.append((line, cells))
            line = first + reader.line_num
    except csv.Error as error:
        return records, (line, error)
    finally:
        csv.field_size_limit(limit)
    return records, None


def _tab_records(path: Path, text: str, first: int) -> tuple[list[Record], tuple[str, ...]]:
    plain = [(number, line.split("\t")) for number, line in enumerate(lines(text), start=first)]
    if '"' not in text:
        return plain, ()
    quoted, fault = _parse(text, first, "\t")
    if fault or not _spreadsheet_quoted(path, plain, quoted):
        return plain, ()
    marked = sum(cell.startswith('"') for _, cells in plain for cell in cells)
    note = f"{path}: the quotation marks around {marked} cells are read as a spreadsheet's, not as part of the texts."
    return quoted, (note,)


def _spreadsheet_quoted(path: Path, plain: Sequence[Record], quoted: Sequence[Record]) -> bool:
    """Whether quotation marks in TSV are a spreadsheet's, and no part of the texts.

    They are if rows have the right number of cells only so, or if they stand around the header's names too. Other
    marks are text: SIB-200's files, for one, have them at both ends of cells.

    Raises:
        DataError: If there is no telling.
    """
    width = len(quoted[0][1])
    ragged = {number for number, cells in plain if len(cells) != width and any(cell.strip() for cell in cells)}
    if ragged:
        still_ragged = sum(len(cells) != width and any(cell.strip() for cell in cells) for _, cells in quoted)
        if still_ragged >= len(ragged):
            return False
        ends = [*(number for number, _ in quoted[1:]), plain[-1][0] + 1]
        for (start, _), end in zip(quoted, ends, strict=True):
            if end - start - len(ragged & set(range(start, end))) > 1:
                raise DataError(
                    f"{path}, row {start}: expected tabs between cells and no line break inside, found a quotation "
                    f"mark that is closed in row {end - 1} only, across lines that are rows by themselves. Correct the "
                    "marks, or save the data as .csv or .jsonl."
                )
        return True
    return len(quoted) == len(plain) and plain[0][1][0].startswith('"')
