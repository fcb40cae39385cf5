"""The named tasks: what they are called, what they say, and that a local copy reads like the hub's data."""

from __future__ import annotations

import re

import pytest

from glotfuse.errors import ConfigError, DataError
from glotfuse.tasks import FileSource, HubSource, get_task, task_names
from glotfuse.tasks.hub import HUB_SPLITS

PAPER = {
    "xnli": (
        "Premise: {premise} Hypothesis: {hypothesis} Label: ",
        ["Entailment", "Neutral", "Contradiction"],
    ),
    "indicxnli": (
        "Premise: {premise} Hypothesis: {hypothesis} Label: ",
        ["Entailment", "Neutral", "Contradiction"],
    ),
    "amazon-reviews": (
        "Review: {text} Label: ",
        ["Very Negative", "Negative", "Neutral", "Positive", "Very Positive"],
    ),
    "sinhala-news": (
        "News Sentence: {sentence} Category: ",
        ["Business", "Entertainment", "Political", "Sports", "Science"],
    ),
}


def test_the_list_of_named_tasks():
    assert task_names() == [
        "quickstart",
        "xnli",
        "indicxnli",
        "amazon-reviews",
        "sinhala-news",
        "sib200",
        "nusax",
        "masakhanews",
    ]


@pytest.mark.parametrize("name", PAPER)
def test_template_and_label_words_are_those_of_the_paper(name):
    task = get_task(name)
    assert (task.template, task.labels) == PAPER[name]


@pytest.mark.parametrize("name", task_names())
def test_every_named_task_has_an_instruction_with_its_labels(name):
    task = get_task(name)
    assert task.name == name
    assert task.instruction.endswith("{labels}.")


def test_pairs_are_cut_at_the_premise():
    assert get_task("xnli").cut_column == get_task("indicxnli").cut_column == "premise"


@pytest.mark.parametrize("name", ["xnli", "indicxnli", "amazon-reviews", "sinhala-news", "nusax", "masakhanews"])
def test_hub_languages_are_known_without_a_network(name):
    task = get_task(name)
    assert isinstance(task.source, HubSource)
    assert task.languages("train") == ["eng_Latn"]
    assert all(re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", language) for language in task.languages("test"))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("xnli", 15),
        ("indicxnli", 12),
        ("amazon-reviews", 6),
        ("sinhala-news", 2),
        ("nusax", 12),
        ("masakhanews", 16),
    ],
)
def test_the_number_of_languages_is_the_data_sets(name, number):
    assert len(get_task(name).languages("test")) == number


@pytest.mark.parametrize("name", task_names())
def test_a_hub_test_split_is_a_test_split(name):
    source = get_task(name).source
    if isinstance(source, HubSource):
        for data in source.datasets:
            assert data.splits["test"].startswith("test")
            assert set(data.splits) <= set(HUB_SPLITS)


def test_an_unknown_task_name_has_a_suggestion():
    with pytest.raises(ConfigError, match=r"found 'sib-200'\. Did you mean 'sib200'\?"):
        get_task("sib-200")


def test_an_unknown_option_has_a_suggestion():
    with pytest.raises(ConfigError, match=r"found 'instructions'\. Did you mean 'instruction'\?"):
        get_task("sib200", instructions="x")


def test_options_replace_the_tasks_own_and_are_checked():
    assert get_task("sib200", instruction="Topic? {labels}").instruction == "Topic? {labels}"
    with pytest.raises(ConfigError, match="template"):
        get_task("sib200", template="{other}")


def test_path_and_source_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="either path or source"):
        get_task("sib200", path=tmp_path, source=FileSource())
    with pytest.raises(ConfigError, match="language_column only with path"):
        get_task("sib200", language_column="lang")


LOCAL = {
    "sib200": "text\tlabel\nx\tscience/technology\ny\tsports\n",
    "nusax": "text\tlabel\nx\tnegative\ny\tpositive\n",
    "xnli": "premise\thypothesis\tlabel\nx\ty\tentailment\nx\tz\tcontradiction\n",
    "indicxnli": "premise\thypothesis\tlabel\nx\ty\tentailment\nx\tz\tcontradiction\n",
    "masakhanews": "text\tlabel\nx\tbusiness\ny\treligion\n",
    "amazon-reviews": "text\tlabel\nx\t0\ny\t4\n",
    "sinhala-news": "sentence\tlabel\nx\tBusiness\ny\tPolitical\n",
    "quickstart": "text\tlabel\nx\tmusic\ny\tweather\n",
}


@pytest.mark.parametrize("name", task_names())
def test_every_named_task_reads_a_local_copy(write, name):
    for split, language in (("train", "eng_Latn"), ("test", "sin_Sinh")):
        folder = write(f"{language}/{split}.tsv", LOCAL[name])
    task = get_task(name, path=folder)
    assert (task.languages("train"), task.languages("test")) == (["eng_Latn"], ["sin_Sinh"])
    assert len(task.load("test", "sin_Sinh")) == 2


def test_a_label_of_two_words_becomes_one(write):
    folder = write("eng_Latn/train.tsv", LOCAL["sib200"])
    labels = [example.label for example in get_task("sib200", path=folder).load("train", "eng_Latn")]
    assert labels == ["technology", "sports"]


def test_language_names_of_a_data_set_become_codes(write):
    write("english/train.tsv", LOCAL["nusax"])
    folder = write("javanese/test.tsv", LOCAL["nusax"])
    task = get_task("nusax", path=str(folder))
    assert (task.languages("train"), task.languages("test")) == (["eng_Latn"], ["jav_Latn"])
    assert task.load("test", "jav_Latn").examples[0].language == "jav_Latn"


def test_a_local_copy_with_a_dev_split_only_is_measured_on_it_when_asked_to(write):
    write("eng_Latn/train.tsv", LOCAL["xnli"])
    folder = write("urd_Arab/dev.tsv", LOCAL["xnli"])
    task = get_task("xnli", path=folder)
    assert task.languages("test") == []
    with pytest.raises(DataError, match=r"expected test data, found none.*The dev split has: urd_Arab"):
        task.load("test", "urd_Arab")
    assert task.languages("dev", evaluation=True) == ["urd_Arab"]
    assert len(task.load("dev", "urd_Arab", evaluation=True)) == 2


def test_a_local_copy_in_one_file_with_a_language_column(write):
    write("train.csv", "text,label,lang\nx,music,eng_Latn\n")
    folder = write("test.csv", "text,label,lang\nx,music,sin_Sinh\n")
    task = get_task("quickstart", path=folder, language_column="lang")
    assert task.languages("test") == ["sin_Sinh"]


def test_the_training_language_of_a_local_copy_can_be_set(write):
    folder = write("train.tsv", LOCAL["sib200"])
    task = get_task("sib200", path=folder, train_language="fra_Latn")
    assert task.load("train", "fra_Latn").examples[0].language == "fra_Latn"
