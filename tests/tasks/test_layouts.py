"""Where splits and languages may lie in a folder, and what is said if they lie elsewhere."""

from __future__ import annotations

import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import LAYOUTS, split_name, task_from_files

LABELS = ["a", "b"]
HEADER = "text\tlabel\n"
LANGUAGES = ("eng_Latn", "sin_Sinh")


def texts(split):
    return [example.fields["text"] for example in split]


def task(path, **options):
    return task_from_files(path, labels=LABELS, **options)


@pytest.mark.parametrize("layout", [layout.template for layout in LAYOUTS if "{language}" in layout.template])
def test_layouts_that_name_the_language(write, layout):
    for split, language in (
        ("train", "eng_Latn"),
        ("dev", "eng_Latn"),
        *(("test", code) for code in LANGUAGES),
    ):
        name = layout.format(split=split, language=language)
        folder = write(f"{name}.tsv", f"{HEADER}{split} {language}\ta\n")
    write("README.md", "nothing")
    write(".hidden/test.tsv", "nothing")
    found = task(folder)
    assert found.languages("train") == found.languages("dev") == ["eng_Latn"]
    assert found.languages("test") == ["eng_Latn", "sin_Sinh"]
    split = found.load("test", "sin_Sinh")
    assert texts(split) == ["test sin_Sinh"]
    assert split.examples[0].language == split.report.language == "sin_Sinh"


def test_a_file_for_all_languages_with_a_language_column(write):
    write("train.tsv", "text\tlabel\tlang\none\ta\teng_Latn\n")
    folder = write("test.tsv", "text\tlabel\tlang\nඑක\ta\tsin_Sinh\ntwo\tb\teng_Latn\nදෙක\tb\tsin_Sinh\n")
    found = task(folder, language_column="lang")
    assert found.languages("test") == ["eng_Latn", "sin_Sinh"]
    split = found.load("test", "sin_Sinh")
    assert texts(split) == ["එක", "දෙක"]
    assert [example.row for example in split] == [2, 4]
    assert split.report.rows == 2


def test_a_file_without_language_column_holds_the_training_language(write):
    folder = write("train.csv", "text,label\nun,a\n")
    found = task(folder, train_language="fra_Latn")
    assert found.languages("train") == ["fra_Latn"]
    assert found.load("train", "fra_Latn").examples[0].language == "fra_Latn"


def test_a_missing_language_column_and_a_missing_language_are_told(write):
    folder = write("test.tsv", "text\tlabel\tlang\none\ta\teng_Latn\ntwo\ta\t\n")
    with pytest.raises(DataError, match=r"expected a column 'language'.*Did you mean 'lang'\?"):
        task(folder, language_column="language").languages("test")
    with pytest.raises(DataError, match="row 3, column 'lang': expected a language, found none"):
        task(folder, language_column="lang").load("test", "eng_Latn")
    report = task(folder, language_column="lang", on_invalid_row="skip").load("test", "eng_Latn").report
    assert (report.rows, report.kept, report.malformed) == (2, 1, 1)


def test_a_row_whose_language_cannot_be_told_is_reported_with_every_language(write):
    folder = write("test.tsv", "text\tlabel\tlang\none\ta\teng_Latn\nhalf a row\nදෙක\ta\tsin_Sinh\n")
    for language in LANGUAGES:
        report = task(folder, language_column="lang", on_invalid_row="skip").load("test", language).report
        assert (report.rows, report.kept, report.malformed) == (2, 1, 1)


def test_a_header_alone_with_a_language_column_is_an_error(write):
    folder = write("test.tsv", "text\tlabel\tlang\n")
    with pytest.raises(DataError, match="found only a header"):
        task(folder, language_column="lang").languages("test")


@pytest.mark.parametrize("name", ["dev", "validation", "val"])
def test_the_dev_split_goes_by_three_names(write, name):
    folder = write(f"{name}.tsv", f"{HEADER}x\ta\n")
    for asked in ("dev", "validation", "val"):
        assert len(task(folder).load(asked, "eng_Latn")) == 1


def test_an_unknown_split_is_refused():
    assert split_name("val") == "dev"
    with pytest.raises(DataError, match=r"found 'tests'\. Did you mean 'test'\?"):
        split_name("tests")


@pytest.mark.parametrize("name", ["train", "dev"])
def test_no_other_split_stands_in_for_test(write, name):
    folder = write(f"{name}.tsv", f"{HEADER}x\ta\n")
    assert task(folder).languages("test") == []
    with pytest.raises(DataError, match="expected test data, found none"):
        task(folder).load("test", "eng_Latn")


def test_a_split_without_data_names_the_folder_what_was_tried_and_what_is_there(write):
    write("train_eng.tsv", HEADER)
    folder = write("sub/notes.md", "x")
    with pytest.raises(DataError) as caught:
        task(folder).load("train", "eng_Latn")
    message = str(caught.value)
    assert str(folder) in message
    assert "{language}/{split}, {split}/{language}, {split}, {language}_{split}, {language}.{split}" in message
    assert ".tsv, .csv, .jsonl, .json, .parquet" in message
    assert "the folder holds: sub/notes.md, train_eng.tsv" in message


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="expected a folder of data files, found none"):
        task(tmp_path / "nowhere").load("train", "eng_Latn")


def test_a_language_without_data_names_those_that_have_it_and_the_nearest(write):
    write("test/eng_Latn.tsv", f"{HEADER}x\ta\n")
    write("dev/yor_Latn.tsv", f"{HEADER}x\ta\n")
    folder = write("test/sin_Sinh.tsv", f"{HEADER}x\ta\n")
    found = task(folder)
    assert found.missing_languages("test") == ["yor_Latn"]
    message = r"\(eng_Latn, sin_Sinh\), found 'sin_Sin'\. Did you mean 'sin_Sinh'\? .*without test data: yor_Latn"
    with pytest.raises(DataError, match=message):
        found.load("test", "sin_Sin")


def test_wanted_languages_are_kept_in_order_and_those_without_data_are_listed(write):
    for language in ("eng_Latn", "sin_Sinh", "tam_Taml"):
        folder = write(f"test/{language}.tsv", f"{HEADER}x\ta\n")
    found = task(folder, target_languages=["tam_Taml", "xho_Latn", "eng_Latn"])
    assert found.languages("test") == ["tam_Taml", "eng_Latn"]
    assert found.missing_languages("test") == ["xho_Latn"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("test.tsv", "eng_Latn/test.tsv"),
        ("eng_Latn/test.tsv", "test/eng_Latn.tsv"),
        ("test.tsv", "test.csv"),
        ("test/eng_Latn.tsv", "test/eng_Latn.jsonl"),
    ],
)
def test_two_files_for_the_same_data_are_an_error_and_not_a_choice(write, first, second):
    write(first, f"{HEADER}x\ta\n")
    folder = write(second, f"{HEADER}x\ta\n")
    with pytest.raises(DataError, match="expected one ") as caught:
        task(folder).languages("test")
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_splits_may_lie_in_different_layouts(write):
    write("train.tsv", f"{HEADER}x\ta\n")
    folder = write("test/sin_Sinh.tsv", f"{HEADER}x\ta\n")
    assert (task(folder).languages("train"), task(folder).languages("test")) == (["eng_Latn"], ["sin_Sinh"])


@pytest.mark.parametrize("name", ["train/test.tsv", "val_test.tsv", "dev.test.tsv"])
def test_the_name_of_a_split_is_no_language(write, name):
    folder = write(name, f"{HEADER}x\ta\n")
    assert task(folder).languages("test") == []


def test_files_can_be_named_one_by_one(write):
    write("english.csv", "text,label\none,a\n")
    folder = write("other/sinhala.tsv", f"{HEADER}එක\ta\n")
    files = {"train": folder / "english.csv", "test": {"sin_Sinh": str(folder / "other" / "sinhala.tsv")}}
    found = task(files)
    assert texts(found.load("train", "eng_Latn")) == ["one"]
    assert texts(found.load("test", "sin_Sinh")) == ["එක"]
    with pytest.raises(DataError, match="found none: files are named only for: train, test"):
        found.load("dev", "eng_Latn")
    with pytest.raises(DataError, match="expected one of train, dev"):
        task({"training": folder / "english.csv"}).languages("train")


def test_a_named_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tsv: expected a data file, found none"):
        task({"train": tmp_path / "gone.tsv"}).load("train", "eng_Latn")


def test_a_single_file_is_the_training_split(write):
    path = write("mine.tsv", f"{HEADER}x\ta\n") / "mine.tsv"
    found = task(path)
    assert found.name == "mine"
    assert found.languages("train") == ["eng_Latn"]
    assert found.languages("test") == []


def test_labels_come_sorted_from_the_training_split(write):
    write("test.tsv", f"{HEADER}x\tunseen\n")
    folder = write("train.tsv", f"{HEADER}x\tzebra\ny\tape\nz\tzebra\n")
    found = task_from_files(folder)
    assert found.labels == ["ape", "zebra"]
    with pytest.raises(DataError, match="unknown label 'unseen'; known labels: ape, zebra"):
        found.load("test", "eng_Latn")


def test_labels_that_are_numbers_are_sorted_as_numbers(write):
    folder = write("train.tsv", f"{HEADER}x\t10\ny\t9\n")
    assert task_from_files(folder).labels == ["9", "10"]


def test_labels_cannot_be_taken_from_a_training_split_that_is_not_there(write):
    folder = write("test.tsv", f"{HEADER}x\ta\n")
    with pytest.raises(DataError, match="labels: expected a training split in eng_Latn"):
        task_from_files(folder)


def test_one_label_alone_is_no_task(write):
    folder = write("train.tsv", f"{HEADER}x\ta\n")
    with pytest.raises(DataError, match=r"train\.tsv, column 'label': .*at least two labels, found 1: 'a' \(row 2\)"):
        task_from_files(folder)


def test_labels_can_be_mapped_to_words(write):
    folder = write("train.tsv", f"{HEADER}x\t0\ny\t1\n")
    found = task_from_files(folder, labels={0: "bad", 1: "good"})
    assert [example.label for example in found.load("train", "eng_Latn")] == ["bad", "good"]


def test_templates_and_instructions_have_defaults(write):
    folder = write("train.tsv", "question\tpassage\tlabel\nq\tp\ta\nq\tp\tb\n")
    found = task_from_files(folder, text_columns=["question", "passage"])
    assert found.template == "Question: {question} Passage: {passage}"
    assert found.cut_column == "question"
    assert found.instruction == "Which label fits this text? Answer with one of: {labels}."
    assert found.labels == ["a", "b"]
    assert task_from_files(folder, text_columns=["passage"]).template == "{passage}"
    assert task_from_files(folder, text_columns=["passage"], label_column=None).instruction == ""


def test_a_split_in_capitals_is_not_found_and_the_folder_is_shown(write):
    folder = write("Train.tsv", f"{HEADER}x\ta\n")
    with pytest.raises(DataError, match=r"expected train data, found none.*the folder holds: Train\.tsv"):
        task(folder).load("train", "eng_Latn")
