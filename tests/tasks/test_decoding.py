"""Packed files and other encodings are read; what is no text at all is named for what it is."""

from __future__ import annotations

import codecs
import gzip

import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import task_from_files

TEXT = "text\tlabel\nක්‍රීඩා\ta\ntwo\tb\n"
GZIPPED = gzip.compress(TEXT.encode(), mtime=0)
PAIRS = [("ක්‍රීඩා", "a"), ("two", "b")]


def pairs(folder, **options):
    return [(e.fields["text"], e.label) for e in task_from_files(folder, **options).load("train", "eng_Latn")]


@pytest.mark.parametrize(
    "raw",
    [
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF8 * 2 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        GZIPPED,
    ],
)
def test_every_way_to_write_the_same_text_is_read(write, raw):
    assert pairs(write("train.tsv", raw)) == PAIRS


@pytest.mark.parametrize(
    "name", ["train.tsv.gz", "eng_Latn/train.tsv.gz", "train/eng_Latn.TSV.GZ", "eng_Latn.train.tsv.gz"]
)
def test_packed_files_are_found_in_every_layout(write, name):
    assert pairs(write(name, GZIPPED)) == PAIRS


def test_plain_text_may_be_packed(write):
    folder = write("train.txt.gz", gzip.compress(b"one\ntwo\n"))
    assert pairs(folder, label_column=None) == [("one", None), ("two", None)]


def test_a_file_beside_its_packed_copy_is_ambiguous(write):
    write("train.tsv", TEXT)
    folder = write("train.tsv.gz", GZIPPED)
    with pytest.raises(DataError, match=r"found train\.tsv and train\.tsv\.gz"):
        pairs(folder)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (
            "train.tsv.gz",
            GZIPPED[:-9],
            "expected a file that can be read, found: Compressed file ended",
        ),
        ("train.tsv", TEXT.encode("utf-16-le"), "NUL bytes as in UTF-16 without a byte order mark"),
        (
            "train.tsv",
            codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")[:-1],
            "expected UTF-16, as the byte order mark says",
        ),
        ("train.csv", b"PK\x03\x04\x14\x00", 'found a workbook or ZIP archive. Save the sheet as "CSV UTF-8"'),
        ("train.csv", b"<!doctype HTML>\n<html>", "found a web page. Download the raw file"),
        ("train.csv", b"version https://git-lfs.github.com/spec/v1\n", "found a pointer of Git LFS"),
        ("train.csv", b"PAR1\x00", r"found Parquet. Name it \.parquet"),
        ("train.xlsx", b"PK\x03\x04", 'Save the sheet as "CSV UTF-8"'),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(write, name, raw, message):
    folder = write(name, raw)
    with pytest.raises(DataError, match=message) as caught:
        pairs(folder)
    assert name in str(caught.value)


def test_a_workbook_that_is_named_as_the_data_is_told_to_be_saved_as_csv(write):
    path = write("data.xlsx", b"PK\x03\x04") / "data.xlsx"
    with pytest.raises(DataError, match=r"found '\.xlsx'\. Save the sheet as \"CSV UTF-8\""):
        pairs(path)
