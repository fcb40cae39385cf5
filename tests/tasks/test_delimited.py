"""CSV and TSV as spreadsheets, notebooks and programs write them, and rows that are no rows."""

from __future__ import annotations

import csv
import io

import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import task_from_files


def rows(folder, **options):
    return [(e.row, e.fields["text"], e.label) for e in task_from_files(folder, **options).load("train", "eng_Latn")]


def pairs(folder, **options):
    return [row[1:] for row in rows(folder, **options)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", 'text;label\n"one; 1";a\ntwo, 2;b\n'),
        ("train.csv", 'sep=;\r\ntext;label\r\n"one; 1";a\r\ntwo, 2;b\r\n'),
        ("train.csv", '"sep=|"\ntext|label\none; 1|a\ntwo, 2|b\n'),
        ("train.csv", "text\tlabel\none; 1\ta\ntwo, 2\tb\n"),
        ("train.tsv", 'text,label\none; 1,a\n"two, 2",b\n'),
        ("train.csv", 'text, label\n"one; 1", a\n"two, 2", "b"\n'),
        ("train.csv", ' text ,"label "\none; 1,a\n"two, 2",b\n'),
        ("train.csv", ',text,label,,\n0,one; 1,a,,\n1,"two, 2",b,,\n'),
        ("train.tsv", "text \t label\none; 1\ta \ntwo, 2\t b\n"),
    ],
)
def test_separators_and_blanks_are_those_that_the_header_shows(write, name, content):
    assert pairs(write(name, content)) == [("one; 1", "a"), ("two, 2", "b")]


def test_rows_below_an_announced_separator_are_numbered_as_in_the_file(write):
    assert [row for row, *_ in rows(write("train.csv", "sep=;\ntext;label\none;a\ntwo;b\n"))] == [3, 4]


def test_the_usual_separator_holds_where_the_header_fits_it(write):
    assert pairs(write("train.csv", "text,label,a;b\none;1,a,x\ntwo,b,y\n")) == [("one;1", "a"), ("two", "b")]


SHEET = [("a\ttab", "x"), ('he said "no"', "y"), ("two\nlines", "x"), ('"all"', "y"), ("plain, comma", "x")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_of_a_spreadsheet_is_read_as_it_meant_it(write, end):
    file = io.StringIO(newline="")
    csv.writer(file, "excel-tab", lineterminator=end).writerows([("text", "label"), *SHEET])
    assert pairs(write("train.tsv", file.getvalue())) == SHEET


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('"a\tb"', "a\tb"),  # has one cell too many otherwise
        ('"he said ""no"""', '"he said ""no"""'),  # SIB-200's files have such cells, and their figures are known
        ('"one, two"', '"one, two"'),
    ],
)
def test_quotation_marks_are_a_spreadsheets_where_cells_are_too_many_otherwise(write, text, meant):
    assert pairs(write("train.tsv", f"text\tlabel\n{text}\tx\nplain\ty\n")) == [(meant, "x"), ("plain", "y")]


@pytest.mark.parametrize(
    "texts",
    [
        ['"Hello"', "plain"],  # a headline in quotes
        ['"one, two"', "three, four"],  # a comma without quotes: no spreadsheet wrote this
        ['"he said ""no"""', 'but "yes" she said'],  # a quote inside a cell without quotes
        ['"one', 'two"'],  # a quotation over two rows
        ['"one', '""two""'],
        ['5" screen', '6" screen'],
    ],
)
def test_quotation_marks_in_other_tsv_are_part_of_the_text(write, texts):
    assert pairs(write("train.tsv", f"text\tlabel\n{texts[0]}\tx\n{texts[1]}\ty\n")) == [
        (texts[0], "x"),
        (texts[1], "y"),
    ]


def test_it_is_told_that_a_spreadsheet_was_recognised(write):
    folder = write("train.tsv", '"text"\t"label"\n"he said ""no"""\tx\nplain\ty\n')
    (warning,) = task_from_files(folder).load("train", "eng_Latn").report.warnings
    assert warning.endswith("quotation marks around 3 cells are read as a spreadsheet's, not as part of the texts.")


def test_rows_are_never_glued_by_two_quotation_marks_far_apart(write):
    folder = write("train.tsv", 'text\tlabel\n"one\tx\nhalf a row\nthree\ty\nfour"\tx\n')
    with pytest.raises(DataError, match=r"train\.tsv, row 2: .* closed in row 5 only, across lines that are rows"):
        pairs(folder)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "train.csv",
            "text,label\nhello, there,a\n",
            r"row 2, column 'label': expected 2 cells, found 3 \('hello \|  there",
        ),
        ("train.tsv", "text\tlabel\none\tx\ttwo\n", "row 2, column 'label': expected 2 cells, found 3"),
        ("train.csv", "text,label\none,a\ntwo\n", "row 3, column 'label': expected 2 cells, found 1"),
        ("train.csv", "text,label\none,a\ntwo,\n", "row 3, column 'label': expected a label, found none"),
    ],
)
def test_a_faulty_row_is_named_though_it_leaves_too_few_labels(write, name, content, fault):
    folder = write(name, content)
    with pytest.raises(DataError, match=rf"(?s){name}.*expected at least two labels, found .*{name}, {fault}"):
        pairs(folder)


def test_data_without_a_header_is_told_to_get_one(write):
    with pytest.raises(DataError, match="where the file begins with data, add a line with the names"):
        pairs(write("train.csv", "hello,a\nthere,b\n"))
