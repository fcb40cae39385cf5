"""A data file's bytes as text: compression, encodings, line ends, and files that are no text at all."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

from glotfuse.errors import DataError

SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
SPREADSHEET_ADVICE = 'Save the sheet as "CSV UTF-8" and give that file.'

_GZIP = b"\x1f\x8b"  # is no UTF-8, so that text never begins with it
_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"pk\x03\x04", "a workbook or ZIP archive", f"{SPREADSHEET_ADVICE[:-1]}, or unpack the archive."),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", SPREADSHEET_ADVICE),
    (b"par1", "Parquet", "Name it .parquet."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the data itself with `git lfs pull`."),
    (b"<!doctype html", "a web page", "Download the raw file, not the page that shows it."),
    (b"<html", "a web page", "Download the raw file, not the page that shows it."),
)
"""How files begin, in lower case, that bear a text file's name by mistake; what they are, and what to do."""


def read_text(path: Path) -> str:
    """Returns a file's text: UTF-8, or UTF-16 or UTF-32 with a byte order mark, each plain or packed with gzip.

    A byte that is not UTF-8 becomes a lone surrogate, which is found again row by row.

    Raises:
        DataError: If the file cannot be read or unpacked, is empty, or is no text.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: expected a file that can be read, found: {found}. Restore the file.") from None
    for start, kind, advice in _NOT_TEXT:
        if raw[: len(start)].lower() == start:
            raise DataError(f"{path}: expected text, found {kind}. {advice}")
    text = _decode(path, raw).lstrip("\ufeff")
    if not text.strip():
        raise DataError(f"{path}: expected data, found an empty file. Add rows or remove the file.")
    return text


def lines(text: str) -> list[str]:
    """Splits at line feeds only, for a text may hold other line breaks; drops blank lines at the end."""
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as old Macs ended lines
    found = [line.removesuffix("\r") for line in text.split("\n")]
    while found and not found[-1].strip():
        found.pop()
    return found


def _decode(path: Path, raw: bytes) -> str:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return raw.decode(encoding, "surrogatepass")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: expected {encoding.upper()}, as the byte order mark says, found {error.reason} at byte "
                    f"{error.start}. Save the file as UTF-8."
                ) from None
    if raw[0:4:2] == b"\0\0" or raw[1:4:2] == b"\0\0":
        raise DataError(
            f"{path}: expected UTF-8, found NUL bytes as in UTF-16 without a byte order mark. Save the file as UTF-8."
        )
    return raw.decode("utf-8", "surrogateescape")
