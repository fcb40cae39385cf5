"""A task's parts must fit together, and training stays in one language."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from glotfuse.errors import ConfigError, DataError
from glotfuse.tasks import FileSource, Task, task_from_files

WORDS = {"pos": "Positive", "neg": "Negative"}


def task(**options):
    return Task("t", FileSource(), **{"label_words": WORDS, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_columns": ()}, "text_columns: expected distinct column names"),
        ({"text_columns": ("text", "text")}, "text_columns: expected distinct"),
        ({"text_columns": ("text", "label")}, "text_columns: expected .*without the label column"),
        ({"template": "{texts}"}, r"template: .*found \{texts\}\. Did you mean 'text'\?"),
        ({"template": "nothing"}, r"template: expected \{text\} once, found it 0 times"),
        ({"template": "{text} {text}"}, "template: expected .* found it 2 times"),
        ({"text_columns": ("a", "b"), "template": "{a}"}, r"template: expected \{b\} once, found it 0"),
        ({"template": "{text"}, "template: expected names in braces"),
        ({"template": "{}{text}"}, "template: expected plain names in braces"),
        ({"template": "{text!r}"}, "template: expected plain names"),
        ({"template": "{text:>9}"}, "template: expected plain names"),
        ({"template": "{text.x}"}, "template: expected plain names"),
        (
            {"cut_column": "texts"},
            r"cut_column: expected a text column \(text\), found 'texts'\. Did you mean",
        ),
        ({"label_words": {}}, "label_words: expected at least two labels, found 0"),
        ({"label_words": {"a": "same", "b": "Same"}}, "label_words: expected a different word"),
        ({"label_words": {"a": "", "b": "x"}}, "label_words: expected .*without surrounding space"),
        ({"label_words": {"a": " y", "b": "x"}}, "label_words: expected .*without surrounding space"),
        ({"label_words": {"": "y", "b": "x"}}, "label_words: expected .*without surrounding space"),
        ({"label_words": {"\u00e9": "x", "e\u0301": "y"}}, "label_words: expected .*found one typed in two ways"),
        ({"label_column": None}, "label_words: expected none without a label column"),
        ({"instruction": "Choose {label}."}, r"instruction: expected no placeholder but \{labels\}"),
        ({"instruction": "Choose {"}, "instruction: expected names in braces"),
        (
            {"label_column": None, "label_words": {}, "instruction": "{labels}"},
            "instruction: expected no placeholder",
        ),
        ({"on_invalid_row": "ignore"}, "on_invalid_row: expected 'error' or 'skip', found 'ignore'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        task(**options)
    assert str(caught.value).startswith("task t: ")


def test_label_words_come_in_the_given_order():
    assert task().labels == ["Positive", "Negative"]


def test_the_template_is_filled_with_texts_that_may_hold_braces():
    pair = task(text_columns=("p", "h"), template="P: {p} H: {h} L: ")
    assert pair.render({"p": "a {b}", "h": "{h}"}) == "P: a {b} H: {h} L: "
    assert pair.cut_column == "p"


@pytest.fixture
def folder(write):
    for name in (
        "train/eng_Latn",
        "dev/eng_Latn",
        "test/eng_Latn",
        "train/sin_Sinh",
        "dev/sin_Sinh",
        "test/sin_Sinh",
    ):
        path = write(f"{name}.tsv", f"text\tlabel\n{name}\tpos\n")
    return path


@pytest.mark.parametrize("split", ["train", "dev", "validation"])
def test_training_and_choosing_stay_in_the_training_language(folder, split):
    found = task_from_files(folder, labels=WORDS)
    assert found.languages(split) == ["eng_Latn"]
    with pytest.raises(DataError, match=r"data in the training language, eng_Latn; found 'sin_Sinh'"):
        found.load(split, "sin_Sinh")


def test_only_test_and_dev_for_measuring_are_read_in_other_languages(folder):
    found = task_from_files(folder, labels=WORDS)
    assert found.languages("test") == found.languages("dev", evaluation=True) == ["eng_Latn", "sin_Sinh"]
    for split in ("test", "dev"):
        example = found.load(split, "sin_Sinh", evaluation=True).examples[0]
        assert (example.fields["text"], example.label) == (f"{split}/sin_Sinh", "Positive")
    assert found.languages("train", evaluation=True) == ["eng_Latn"]
    with pytest.raises(DataError, match="expected train data in the training language"):
        found.load("train", "sin_Sinh", evaluation=True)


def test_the_training_language_is_a_choice(folder):
    found = task_from_files(folder, labels=WORDS, train_language="sin_Sinh")
    assert found.languages("train") == ["sin_Sinh"]
    assert found.load("train", "sin_Sinh").examples[0].fields["text"] == "train/sin_Sinh"


def test_a_task_travels_to_other_processes(folder):
    found = task_from_files(folder, labels=WORDS)
    assert pickle.loads(pickle.dumps(found)) == found


def test_importing_tasks_imports_no_heavy_library():
    code = (
        "import sys, glotfuse.tasks as t; t.get_task('quickstart').load('train', 'eng_Latn'); "
        "print(sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
