"""Faulty rows: all are found in one go, named with file, row and column, and never lost silently."""

from __future__ import annotations

import json

import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import task_from_files

LABELS = ["positive", "negative"]


def load(folder, **options):
    return task_from_files(folder, labels=LABELS, **options).load("train", "eng_Latn")


FAULTS = {
    "empty text": ("\tpositive", "column 'text': expected a text, found an empty one", "empty"),
    "blank text": ("  \tpositive", "column 'text': expected a text, found an empty one", "empty"),
    "invisible text": (
        "\u200b\u200d\tpositive",
        "column 'text': expected a text, found an empty one",
        "empty",
    ),
    "blank line": ("", "expected a row, found a blank line", "empty"),
    "no label": ("some text\t ", "column 'label': expected a label, found none", "missing_label"),
    "unknown label": (
        "some text\tpositve",
        "column 'label': unknown label 'positve'; known labels: positive, negative. Did you mean 'positive'?",
        "unknown_label",
    ),
    "other case": ("some text\tPositive", "Did you mean 'positive'?", "unknown_label"),
    "too few cells": ("some text", "column 'label': expected 2 cells, found 1", "malformed"),
    "too many cells": ("some\ttext\tpositive", "column 'label': expected 2 cells, found 3", "malformed"),
    "NUL in a text": (
        "a\0b\tpositive",
        "column 'text': expected a text, found a NUL character at character 2; remove it",
        "malformed",
    ),
    "NUL in a label": ("text\tposi\0tive", "column 'label': expected a text, found a NUL character", "malformed"),
    "wrong encoding of a text": (
        b"caf\xe9\tpositive",
        "column 'text': expected UTF-8, found byte 0xE9 at character 4",
        "malformed",
    ),
    "wrong encoding of a label": (b"text\tpositiv\xe9", "column 'label': expected UTF-8", "malformed"),
}


def with_fault(write, line):
    raw = line if isinstance(line, bytes) else line.encode()
    return write("train.tsv", b"text\tlabel\ngood\tpositive\n" + raw + b"\ngood too\tnegative\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_row_is_an_error_with_file_row_and_column(write, fault):
    line, message, _ = FAULTS[fault]
    folder = with_fault(write, line)
    with pytest.raises(DataError) as caught:
        load(folder)
    text = str(caught.value)
    assert f"{folder / 'train.tsv'}, row 3" in text
    assert message in text
    assert "found 1 faulty among 3" in text
    assert "set on_invalid_row to 'skip'" in text
    text.encode("utf-8")  # can be printed even if the data cannot


@pytest.mark.parametrize("fault", FAULTS)
def test_a_skipped_row_is_counted_under_its_fault(write, fault):
    line, message, counter = FAULTS[fault]
    report = load(with_fault(write, line), on_invalid_row="skip").report
    assert (report.rows, report.kept, report.dropped) == (3, 2, 1)
    assert getattr(report, counter) == 1
    assert message in report.problems[0]


def test_all_faults_are_told_at_once_ten_of_them_in_words(write):
    bad = "".join(f"text {number}\tnone\n" for number in range(25))
    folder = write("train.tsv", f"text\tlabel\ngood\tpositive\n{bad}\tpositive\n")
    with pytest.raises(DataError, match=r"found 26 faulty among 27 \(the first 10 of 26 faults\)") as caught:
        load(folder)
    assert str(caught.value).count("unknown label") == 10


def test_every_faulty_column_of_a_row_is_named(write):
    folder = write("train.tsv", "premise\thypothesis\tlabel\n\t\tother\n")
    with pytest.raises(DataError) as caught:
        load(folder, text_columns=("premise", "hypothesis"))
    for column in ("premise", "hypothesis", "label"):
        assert f"row 2, column '{column}'" in str(caught.value)
    assert "found 1 faulty among 1" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "positive"}, "column 'text': expected a text, found no value"),
        ({"text": None, "label": "positive"}, "column 'text': expected a text, found no value"),
        ({"text": 5, "label": "positive"}, "column 'text': expected a text, found int '5'"),
        ({"text": ["a"], "label": "positive"}, "column 'text': expected a text, found list"),
        ({"text": "x"}, "column 'label': expected a label, found none"),
        ({"text": "x", "label": None}, "column 'label': expected a label, found none"),
        ({"text": "x", "label": ["positive"]}, "column 'label': expected a label, found list"),
        ({"text": "x", "label": {"name": "positive"}}, "column 'label': expected a label, found dict"),
        ({"text": "x", "label": float("nan")}, "column 'label': expected a label, found none"),
        ({"text": "\ud800", "label": "positive"}, "column 'text': expected UTF-8, found surrogate U+D800"),
        ([1], "expected a JSON object, found list"),
    ],
)
def test_faults_of_json_values(write, record, message):
    lines = [json.dumps({"text": "good", "label": "negative"}), json.dumps(record)]
    folder = write("train.jsonl", "\n".join(lines))
    with pytest.raises(DataError) as caught:
        load(folder)
    assert f"{folder / 'train.jsonl'}, row 2" in str(caught.value)
    assert message in str(caught.value)


def test_faults_of_csv_rows(write):
    folder = write("train.csv", b"text,label\ngood,positive\na,b,positive\n\ncaf\xe9,negative\n")
    report = load(folder, on_invalid_row="skip").report
    assert (report.rows, report.kept, report.malformed, report.empty) == (4, 1, 2, 1)


def test_duplicates_are_kept_and_counted(write):
    folder = write("train.tsv", "text\tlabel\nsame\tpositive\nsame\tnegative\nsame\tpositive\nsame\tpositive\n")
    split = load(folder)
    assert len(split) == 4
    assert split.report.duplicates == 2
    assert split.report.summary() == "eng_Latn train: 4 of 4 rows, 2 duplicates (kept)"


def test_the_summary_names_what_was_left_out(write):
    folder = write("train.tsv", "text\tlabel\ngood\tpositive\n\tpositive\nx\ty\nx\t\nx\n")
    summary = load(folder, on_invalid_row="skip").report.summary()
    assert summary == "eng_Latn train: 1 of 5 rows, 1 empty, 1 unknown label, 1 no label, 1 malformed"


def test_data_without_any_usable_row_is_an_error_even_when_skipping(write):
    folder = write("train.tsv", "text\tlabel\nx\tother\n")
    with pytest.raises(DataError, match=r"(?s)found 1 faulty among 1:.*No row is left to use"):
        load(folder, on_invalid_row="skip")


def test_plain_text_of_blank_lines_only_is_an_error(write):
    folder = write("train.txt", "\ufeff\n\n")
    with pytest.raises(DataError, match="found an empty file"):
        task_from_files(folder, label_column=None).load("train", "eng_Latn")


def test_blanks_around_labels_are_no_part_of_them(write):
    folder = write("train.csv", "text,label\none,sports\ntwo,sports \nthree,\xa0health\n")
    task = task_from_files(folder)
    assert task.labels == ["health", "sports"]
    assert [example.label for example in task.load("train", "eng_Latn")] == ["sports", "sports", "health"]


@pytest.mark.parametrize(
    "labels", [None, {"caf\u00e9": "coffee", "tea": "tea"}, {"cafe\u0301": "coffee", "tea": "tea"}]
)
def test_a_label_is_one_however_its_accents_were_typed(write, labels):
    folder = write("train.csv", "text,label\none,caf\u00e9\ntwo,cafe\u0301\nthree,tea\n")
    task = task_from_files(folder, labels=labels)
    words = ["caf\u00e9", "tea"] if labels is None else ["coffee", "tea"]
    assert task.labels == words
    assert [example.label for example in task.load("train", "eng_Latn")] == [words[0], words[0], words[1]]


@pytest.mark.parametrize("twin", ["Sports", "sports\u200f", "\uff53ports"])
def test_labels_that_look_alike_are_refused_with_their_rows(write, twin):
    folder = write("train.csv", f"text,label\none,sports\ntwo,{twin}\nthree,health\nfour,sports\n")
    with pytest.raises(DataError) as caught:
        task_from_files(folder)
    assert f"{folder / 'train.csv'}, column 'label'" in str(caught.value)
    assert "'sports' (2 rows: 2, 5) and " in str(caught.value)
    assert "(row 3). Write each label alike everywhere" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"), [((0, 1), "'0', '1'"), ((False, True), "'False', 'True'"), ((0.5, 1.5), "'0.5', '1.5'")]
)
def test_numbers_as_label_words_are_warned_of(write, values, said):
    folder = write("train.jsonl", "".join(json.dumps({"text": "x", "label": v}) + "\n" for v in values))
    (warning,) = task_from_files(folder).load("train", "eng_Latn").report.warnings
    assert f"The LM is taught to say {said}, which are no words. Set task.label_words" in warning
    words = {str(value): word for value, word in zip(values, ("no", "yes"), strict=True)}
    assert task_from_files(folder, labels=words).load("train", "eng_Latn").report.warnings == ()


def test_a_label_that_no_training_row_has_is_warned_of(write):
    folder = write("train.tsv", "text\tlabel\ngood\tpositive\n")
    assert load(folder).report.warnings == ("No training row has the label 'negative': it is not learned.",)
    write("test.tsv", "text\tlabel\ngood\tpositive\n")
    assert task_from_files(folder, labels=LABELS).load("test", "eng_Latn").report.warnings == ()


@pytest.mark.parametrize("language", ["../up", "a/b", "a\\b", "..", "a\0b", "\u200f"])
def test_a_language_that_no_file_can_be_named_after_is_a_fault(write, language):
    folder = write("train.csv", f"text,label,lang\nx,positive,eng_Latn\ny,negative,{language}\n")
    task = task_from_files(folder, labels=LABELS, language_column="lang")
    assert task.languages("train") == ["eng_Latn"]
    with pytest.raises(DataError, match=r"row 3, column 'lang': expected"):
        task.load("train", "eng_Latn")
