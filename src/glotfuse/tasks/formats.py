"""File formats: TSV, CSV, JSON lines, Parquet and plain text, each read into the same `Table`."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glotfuse.errors import DataError
from glotfuse.tasks.rows import Fault, Problem, Row, Table, printable

_MAX_FIELD = 2**31 - 1  # the largest limit the csv module takes on every platform


@dataclass(frozen=True)
class Format:
    """A file format: its extension, and the function that opens it for the columns that will be used."""

    extension: str
    read: Callable[[Path, Sequence[str]], Table]


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Opens a data file by its extension.

    Args:
        path: A .tsv, .csv, .jsonl, .parquet or .txt file.
        columns: The columns that will be used; other columns may be left unread.

    Raises:
        DataError: If the file is missing, empty, of another format, or its header cannot be used.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: expected a file of {', '.join(FORMATS)}, found {path.suffix or 'no extension'!r}.")
    if not path.is_file():
        raise DataError(f"{path}: expected a data file, found none. Check the path.")
    return reader.read(path, columns)


def _decode(path: Path) -> str:
    """Returns the file's text; a byte that is not UTF-8 becomes a lone surrogate, found again row by row."""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: expected UTF-8, found UTF-16. Save the file as UTF-8.")
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if not text.strip():
        raise DataError(f"{path}: expected data, found an empty file. Add rows or remove the file.")
    return text


def _lines(text: str) -> list[str]:
    """Splits at line feeds only, for a text may hold other line breaks; drops blank lines at the end."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _blank(number: int, tolerated: bool = False) -> Problem:
    return Problem(Fault.EMPTY, number, None, "expected a row, found a blank line", tolerated)


def _records(header: Sequence[str], records: Iterable[tuple[int, Sequence[str]]]) -> Iterator[Row | Problem]:
    for number, cells in records:
        if len(cells) == len(header):
            yield Row(number, dict(zip(header, cells, strict=True)))
        elif not any(cell.strip() for cell in cells):
            yield _blank(number)
        else:
            column = header[len(cells)] if len(cells) < len(header) else header[-1]
            message = f"expected {len(header)} cells, found {len(cells)}: a separator or line break inside a text?"
            yield Problem(Fault.MALFORMED, number, column, message)


def _check_header(path: Path, header: Sequence[str]) -> None:
    repeated = sorted({printable(name) for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: expected distinct column names, found {', '.join(map(repr, repeated))} twice.")


def _read_tsv(path: Path, columns: Sequence[str]) -> Table:
    lines = _lines(_decode(path))
    header = lines[0].split("\t")
    _check_header(path, header)
    records = ((number, line.split("\t")) for number, line in enumerate(lines[1:], start=2))
    return Table(str(path), header, _records(header, records))


def _read_csv(path: Path, columns: Sequence[str]) -> Table:
    records: list[tuple[int, list[str]]] = []
    # strict: otherwise a quote that is never closed swallows the rest of the file without a word
    reader = csv.reader(io.StringIO(_decode(path), newline=""), strict=True)
    limit = csv.field_size_limit(_MAX_FIELD)
    line = 1
    try:
        for cells in reader:
            records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, row {line}: expected CSV (commas, quotes doubled inside quotes), found: {error}. "
            "Correct the quoting from this row on, or save the data as .tsv or .jsonl."
        ) from error
    finally:
        csv.field_size_limit(limit)
    while records and not any(cell.strip() for cell in records[-1][1]):
        records.pop()
    if not records:
        raise DataError(f"{path}: expected data, found only separators. Add rows or remove the file.")
    header = records[0][1]
    _check_header(path, header)
    return Table(str(path), header, _records(header, records[1:]))


def _read_jsonl(path: Path, columns: Sequence[str]) -> Table:
    rows: list[Row | Problem] = []
    found: dict[str, None] = {}
    for number, line in enumerate(_lines(_decode(path)), start=1):
        if not line.strip():
            rows.append(_blank(number))
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            rows.append(Problem(Fault.MALFORMED, number, None, f"expected a JSON object, found invalid JSON: {error}"))
            continue
        if isinstance(record, dict):
            found.update(dict.fromkeys(record))
            rows.append(Row(number, record))
        else:
            message = f"expected a JSON object, found {type(record).__name__}"
            rows.append(Problem(Fault.MALFORMED, number, None, message))
    if not found:
        first = next(row for row in rows if isinstance(row, Problem))
        raise DataError(f"{first.describe(str(path))}. No line of the file is a JSON object.")
    return Table(str(path), list(found), rows)


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        names: list[str] = parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet file, found: {error}") from error
    wanted = [name for name in names if name in columns]

    def rows() -> Iterator[Row]:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(number, record)

    return Table(str(path), names, rows())


def _read_text(path: Path, columns: Sequence[str]) -> Table:
    column = columns[0] if columns else "text"
    rows = [
        Row(number, {column: line}) if line.strip() else _blank(number, tolerated=True)
        for number, line in enumerate(_lines(_decode(path)), start=1)
    ]
    return Table(str(path), [column], rows)


FORMATS = {
    form.extension: form
    for form in (
        Format(".tsv", _read_tsv),
        Format(".csv", _read_csv),
        Format(".jsonl", _read_jsonl),
        Format(".parquet", _read_parquet),
        Format(".txt", _read_text),
    )
}
"""Formats by extension. TSV: no quoting. TXT: one document a line, blank lines left out and counted."""
