"""Every file format gives the same examples, and a file that is not what it should be is refused."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from glotfuse.errors import DataError
from glotfuse.tasks import task_from_files

TEXTS = ['He said "no".', "එක, දෙක", "line\u2028separator\x85and\x0cothers", "  spaces kept  "]
LABELS = ["a", "b", "a", "b"]


def load(folder, **options):
    return task_from_files(folder, **options).load("train", "eng_Latn")


def pairs(split):
    return [(example.fields["text"], example.label) for example in split]


def tsv_file(path):
    path.write_text("text\tlabel\n" + "".join(f"{t}\t{w}\n" for t, w in zip(TEXTS, LABELS, strict=True)), newline="")


def csv_file(path):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(TEXTS, LABELS, strict=True)])


def jsonl_file(path):
    rows = [json.dumps({"text": t, "label": w}, ensure_ascii=False) for t, w in zip(TEXTS, LABELS, strict=True)]
    path.write_text("\n".join(rows), newline="")


def parquet_file(path):
    parquet.write_table(pa.table({"text": TEXTS, "label": LABELS, "other": [1, 2, 3, 4]}), path)


WRITERS = {"tsv": tsv_file, "csv": csv_file, "jsonl": jsonl_file, "parquet": parquet_file}


@pytest.mark.parametrize("extension", WRITERS)
def test_all_formats_give_the_same_examples(tmp_path, extension):
    WRITERS[extension](tmp_path / f"train.{extension}")
    assert pairs(load(tmp_path)) == list(zip(TEXTS, LABELS, strict=True))


@pytest.mark.parametrize(("extension", "first"), [("tsv", 2), ("csv", 2), ("jsonl", 1), ("parquet", 1)])
def test_rows_are_numbered_as_in_the_file(tmp_path, extension, first):
    WRITERS[extension](tmp_path / f"train.{extension}")
    split = load(tmp_path)
    assert [example.row for example in split] == [first, first + 1, first + 2, first + 3]
    assert {example.source for example in split} == {str(tmp_path / f"train.{extension}")}


def test_csv_rows_are_numbered_by_line_even_after_a_text_of_several_lines(write):
    folder = write("train.csv", 'text,label\n"one\ntwo",a\nthree,b\n')
    assert [(e.row, e.fields["text"]) for e in load(folder)] == [(2, "one\ntwo"), (4, "three")]


def test_byte_order_mark_and_windows_line_ends_are_accepted(write):
    folder = write("train.tsv", b"\xef\xbb\xbftext\tlabel\r\none\ta\r\ntwo\tb\r\n")
    assert pairs(load(folder)) == [("one", "a"), ("two", "b")]


@pytest.mark.parametrize("extension", ["tsv", "csv", "jsonl"])
def test_blank_lines_at_the_end_are_no_rows(tmp_path, extension):
    path = tmp_path / f"train.{extension}"
    WRITERS[extension](path)
    path.write_bytes(path.read_bytes() + b"\n\n \n")
    assert load(tmp_path).report.rows == 4


@pytest.mark.parametrize("extension", WRITERS)
def test_a_text_of_150000_characters_loads(tmp_path, monkeypatch, extension):
    monkeypatch.setattr(f"{__name__}.TEXTS", ["x" * 150_000, "b", "c", "d"])
    csv.field_size_limit(131_072)  # the default, which other libraries rely on
    WRITERS[extension](tmp_path / f"train.{extension}")
    assert len(load(tmp_path).examples[0].fields["text"]) == 150_000
    assert csv.field_size_limit() == 131_072


def test_tsv_has_no_quoting(write):
    folder = write("train.tsv", 'text\tlabel\n"one\ta\n""two""\tb\n')
    assert pairs(load(folder)) == [('"one', "a"), ('""two""', "b")]


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
def test_integer_labels_are_read_as_text(tmp_path, extension):
    if extension == "jsonl":
        (tmp_path / "train.jsonl").write_text('{"text": "x", "label": 10}\n{"text": "y", "label": 9}\n')
    else:
        parquet.write_table(pa.table({"text": ["x", "y"], "label": [10, 9]}), tmp_path / "train.parquet")
    task = task_from_files(tmp_path)
    assert task.labels == ["9", "10"]
    assert pairs(task.load("train", "eng_Latn")) == [("x", "10"), ("y", "9")]


DATASETS_FEATURES = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}


def class_labels(path, labels, features=DATASETS_FEATURES):
    table = pa.table({"text": [f"text {i}" for i in range(len(labels))], "label": pa.array(labels, pa.int64())})
    parquet.write_table(table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()}), path)


def test_class_labels_in_parquet_are_read_by_name(tmp_path):
    class_labels(tmp_path / "train.parquet", [1, 0, 1])
    task = task_from_files(tmp_path)
    assert task.labels == ["neg", "pos"]
    assert [label for _, label in pairs(task.load("train", "eng_Latn"))] == ["pos", "neg", "pos"]


def test_class_labels_are_what_datasets_writes(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    data = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    data.to_parquet(tmp_path / "train.parquet")
    assert pairs(load(tmp_path)) == [("x", "pos"), ("y", "neg")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (-1, "row 3, column 'label': expected a label, found none"),
        (None, "row 3, column 'label': expected a label, found none"),
        (2, "row 3, column 'label': expected the number of one of 2 classes, found '2'"),
    ],
)
def test_a_class_label_without_a_name_is_a_fault_of_its_row(tmp_path, wrong, message):
    class_labels(tmp_path / "train.parquet", [0, 1, wrong])
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    assert len(load(tmp_path, on_invalid_row="skip")) == 2


def test_a_damaged_page_of_parquet_is_an_error(tmp_path):
    parquet_file(tmp_path / "train.parquet")
    raw = bytearray((tmp_path / "train.parquet").read_bytes())
    raw[4:60] = bytes(56)  # the first page; the footer stays whole
    (tmp_path / "train.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"(?s)train\.parquet: expected a Parquet file.*Write or fetch it anew"):
        load(tmp_path, labels=["a", "b"])


ROWS = [{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"version": "1.0", "data": ROWS, "labels": ["a", "b"]}),
        "".join(json.dumps(row) + "\n" for row in ROWS),
    ],
)
def test_json_is_an_array_alone_or_in_an_object_or_lines(write, content):
    split = load(write("train.json", content))
    assert [(e.row, e.fields["text"], e.label) for e in split] == [(1, "x", "a"), (2, "y", "b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ROWS, "test": ROWS}, r"found an object with 2 of them and the keys 'train', 'test'\. In pandas"),
        ({"text": {"0": "x"}, "label": {"0": "a"}}, "with 0 of them and the keys 'text', 'label'"),
        ("text", "expected a JSON array of objects, found str"),
        ([["x", "a"]], "row 1: expected a JSON object, found list"),
        ([], "expected rows, found none"),
    ],
)
def test_other_json_is_refused_with_the_way_to_write_it(write, content, message):
    with pytest.raises(DataError, match=message):
        load(write("train.json", json.dumps(content)), labels=["a", "b"])


def test_a_key_that_json_has_twice_is_a_fault_and_not_one_of_the_two(write):
    folder = write("train.jsonl", '{"text": "x", "label": "a"}\n{"text": "x", "label": "a", "label": "b"}\n')
    with pytest.raises(DataError, match="row 2: expected a JSON object, found invalid JSON: the key 'label' twice"):
        load(folder, labels=["a", "b"])


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_json_nested_without_end_is_an_error(write, name):
    with pytest.raises(DataError, match="nested too deeply"):
        load(write(name, "[" * 100_000), labels=["a", "b"])


def test_labelled_data_is_not_taken_from_a_text_file_that_is_named(write):
    with pytest.raises(DataError, match=r"data\.txt: expected texts with labels, found a \.txt file"):
        load(write("data.txt", "one\ntwo\n") / "data.txt")


def test_plain_text_is_one_document_a_line_and_blank_lines_are_counted(write):
    folder = write("train.txt", "one\n\ntwo\n")
    split = load(folder, label_column=None)
    assert [(e.fields, e.label, e.row) for e in split] == [
        ({"text": "one"}, None, 1),
        ({"text": "two"}, None, 3),
    ]
    assert (split.report.rows, split.report.kept, split.report.empty) == (3, 2, 1)


@pytest.mark.parametrize("extension", WRITERS)
def test_any_format_with_a_text_column_serves_as_unlabelled_text(tmp_path, extension):
    WRITERS[extension](tmp_path / f"train.{extension}")
    split = load(tmp_path / f"train.{extension}", label_column=None)
    assert [(e.fields["text"], e.label) for e in split] == [(text, None) for text in TEXTS]


def test_plain_text_is_not_taken_for_labelled_data(write):
    folder = write("train.txt", "one\n")
    with pytest.raises(
        DataError, match=r"a file of \.tsv, \.csv, \.jsonl, \.json, \.parquet; the folder holds: train\.txt"
    ):
        load(folder, labels=["a", "b"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tsv", "", "found an empty file"),
        ("train.tsv", "\n \n", "found an empty file"),
        ("train.csv", ",\n", "found only separators"),
        ("train.tsv", "text\tlabel\n", "found only a header"),
        ("train.csv", "text,label\n", "found only a header"),
        ("train.tsv", "text\tlabel".encode("utf-16-le"), "expected UTF-8, found NUL bytes as in UTF-16"),
        ("train.tsv", "text\ttext\tlabel\nx\ty\ta\n", "found 'text' twice"),
        (
            "train.csv",
            'text,label\none,a\n"two,b\nthree,c\n',
            r"row 3: expected CSV .* found: unexpected end of data",
        ),
        ("train.csv", 'text,label\n"one" more,a\n', "row 2: expected CSV"),
        ("train.parquet", "text\tlabel\n", "expected a Parquet file"),
        ("train.jsonl", "[1]\n", "row 1: expected a JSON object, found list"),
        ("train.jsonl", '{"text": \n', "row 1: expected a JSON object, found invalid JSON"),
    ],
)
def test_unusable_files_are_refused(write, name, content, message):
    folder = write(name, content)
    with pytest.raises(DataError, match=message) as caught:
        load(folder, labels=["a", "b"])
    assert str(folder / name) in str(caught.value)


def test_an_empty_parquet_file_is_refused(tmp_path):
    parquet.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="found only a header"):
        load(tmp_path, labels=["a", "b"])


@pytest.mark.parametrize("extension", WRITERS)
def test_a_missing_column_names_the_columns_found_and_the_nearest(tmp_path, extension):
    WRITERS[extension](tmp_path / f"train.{extension}")
    message = r"expected a column 'labels', found the columns 'text', 'label'.* Did you mean 'label'\?"
    with pytest.raises(DataError, match=message):
        load(tmp_path, label_column="labels", labels=["a", "b"])


def test_a_wrong_separator_is_recognised(write):
    folder = write("train.csv", "text:a;label:b\none;a\n")
    with pytest.raises(DataError, match="is the file's separator the one its extension says"):
        load(folder, labels=["a", "b"])


def test_an_unknown_extension_is_refused(write):
    folder = write("data.xlsx", "x")
    with pytest.raises(DataError, match=r"expected a file of \.tsv, \.csv.*found '\.xlsx'"):
        load(folder / "data.xlsx")
