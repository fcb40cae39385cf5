"""File formats: TSV, CSV, JSON, JSON lines, Parquet and plain text, each read into the same `Table`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glotfuse.errors import DataError
from glotfuse.tasks.decoding import SPREADSHEET_ADVICE, SPREADSHEETS, lines, read_text
from glotfuse.tasks.delimited import read_csv, read_tsv
from glotfuse.tasks.rows import Fault, Problem, Row, Table, blank_line, check_header, printable, shortened

PACKED = ".gz"
"""Follows the extension of a text format that is packed."""


@dataclass(frozen=True)
class Format:
    """A file format: its extension, and the function that opens it for the columns that will be used."""

    extension: str
    read: Callable[[Path, Sequence[str]], Table]


def extension_of(path: Path) -> str:
    """Returns the extension in lower case; that of a packed file is the one before .gz."""
    name = Path(path.name.lower())
    return name.with_suffix("").suffix if name.suffix == PACKED else name.suffix


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Opens a data file by its extension.

    Args:
        path: A .tsv, .csv, .jsonl, .json, .parquet or .txt file; text may be packed, with .gz added.
        columns: The columns that will be used; other columns may be left unread.

    Raises:
        DataError: If the file is missing, empty, of another format, or its header cannot be used.
    """
    extension = extension_of(path)
    reader = FORMATS.get(extension)
    if reader is None:
        advice = f" {SPREADSHEET_ADVICE}" if extension in SPREADSHEETS else ""
        found = path.suffix or "no extension"
        raise DataError(f"{path}: expected a file of {', '.join(FORMATS)}, found {found!r}.{advice}")
    if not path.is_file():
        raise DataError(f"{path}: expected a data file, found none. Check the path.")
    return reader.read(path, columns)


def _load_json(text: str) -> Any:
    """Returns the value of JSON text.

    Raises:
        ValueError: If it is none, is nested too deeply, or has a key twice, of which one would be lost.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return record


def _read_jsonl(path: Path, columns: Sequence[str]) -> Table:
    return _json_lines(path, read_text(path))


def _json_lines(path: Path, text: str) -> Table:
    rows: list[Row | Problem] = []
    for number, line in enumerate(lines(text), start=1):
        if not line.strip():
            rows.append(blank_line(number))
            continue
        try:
            rows.append(_json_row(number, _load_json(line)))
        except ValueError as error:
            message = printable(f"expected a JSON object, found invalid JSON: {error}")
            rows.append(Problem(Fault.MALFORMED, number, None, message))
    return _json_table(path, rows, "No line of the file is a JSON object. Name it .json if it is one array.")


def _json_row(number: int, value: Any) -> Row | Problem:
    if isinstance(value, dict):
        return Row(number, value)
    message = f"expected a JSON object, found {type(value).__name__} {shortened(str(value))}"
    return Problem(Fault.MALFORMED, number, None, message)


def _json_table(path: Path, rows: Sequence[Row | Problem], advice: str) -> Table:
    found = dict.fromkeys(name for row in rows if isinstance(row, Row) for name in row.values)
    if not found:
        problem = next((row.describe(str(path)) for row in rows if isinstance(row, Problem)), None)
        raise DataError(f"{problem or f'{path}: expected rows, found none'}. {advice}")
    return Table(str(path), list(found), rows)


def _read_json(path: Path, columns: Sequence[str]) -> Table:
    """Reads an array of objects, alone or as the one such array in an object; or JSON lines, often named so too."""
    text = read_text(path)
    try:
        document = _load_json(text)
    except ValueError as error:
        if len(lines(text)) > 1 and text.lstrip().startswith("{") and _is_object(lines(text)[0]):
            return _json_lines(path, text)
        raise DataError(printable(f"{path}: expected JSON, found: {error}. Write the file anew.")) from None
    if isinstance(document, dict):
        if columns and all(isinstance(document.get(column), (str, int)) for column in columns):
            return _json_table(path, [Row(1, document)], _JSON_ADVICE)
        document = _only_array(path, document)
    if not isinstance(document, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {type(document).__name__}. {_JSON_ADVICE}")
    return _json_table(path, [_json_row(number, row) for number, row in enumerate(document, start=1)], _JSON_ADVICE)


_JSON_ADVICE = "In pandas, write it with `to_json(path, orient='records')`."


def _is_object(line: str) -> bool:
    try:
        return isinstance(_load_json(line), dict)
    except ValueError:
        return False


def _only_array(path: Path, document: Mapping[str, Any]) -> list[Any]:
    arrays = [value for value in document.values() if isinstance(value, list) and isinstance((*value, 0)[0], dict)]
    if len(arrays) != 1:
        keys = ", ".join(shortened(key) for key in list(document)[:10])
        raise DataError(
            f"{path}: expected a JSON array of objects, or an object with one such array, found an object with "
            f"{len(arrays)} of them and the keys {keys or 'none'}. {_JSON_ADVICE}"
        )
    return arrays[0]


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    import pyarrow
    from pyarrow import parquet

    def damaged(error: Exception) -> DataError:
        return DataError(f"{path}: expected a Parquet file, found: {error}. Write or fetch it anew.")

    try:
        schema = parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(error) from error
    check_header(str(path), schema.names)
    wanted = [name for name in schema.names if name in columns]
    classes = _class_names(schema.metadata or {})

    def rows() -> Iterator[Row | Problem]:
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=wanted):
                    for record in batch.to_pylist():
                        number += 1
                        yield _named(Row(number, record), classes)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise damaged(error) from error

    return Table(str(path), schema.names, rows())


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Returns the names of the integers 0, 1, ... by column, as `datasets` keeps them in the schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {column: list(of["names"]) for column, of in features.items() if of.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # another program's, or another version's: the column is then read as it is


def _named(row: Row, classes: Mapping[str, Sequence[str]]) -> Row | Problem:
    values = dict(row.values)
    for column in classes.keys() & values.keys():
        names, value = classes[column], values[column]
        if value is None or value == -1:  # the mark of `datasets` for a label that is not told
            values[column] = None
        elif isinstance(value, int) and 0 <= value < len(names):
            values[column] = names[value]
        else:
            message = f"expected the number of one of {len(names)} classes, found {shortened(str(value))}"
            return Problem(Fault.MALFORMED, row.number, column, message)
    return Row(row.number, values)


def _read_plain(path: Path, columns: Sequence[str]) -> Table:
    column = columns[0] if columns else "text"
    rows = [
        Row(number, {column: line}) if line.strip() else blank_line(number, tolerated=True)
        for number, line in enumerate(lines(read_text(path)), start=1)
    ]
    return Table(str(path), [column], rows)


FORMATS = {
    form.extension: form
    for form in (
        Format(".tsv", read_tsv),
        Format(".csv", read_csv),
        Format(".jsonl", _read_jsonl),
        Format(".json", _read_json),
        Format(".parquet", _read_parquet),
        Format(".txt", _read_plain),
    )
}
"""Formats by extension. TXT: one document a line, blank lines left out and counted."""
