"""The hub path, offline: folders that hold data as a hub repository does, and a replaced downloader."""

from __future__ import annotations

import datasets
import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import HubDataset, HubSource, Task, get_task

WORDS = {"bad": "Negative", "good": "Positive"}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def repository(tmp_path):
    """A local copy of a hub repository: a card with two configurations, Parquet files, class labels."""
    folder = tmp_path / "reviews"
    features = datasets.Features(
        {"body": datasets.Value("string"), "stars": datasets.ClassLabel(names=["bad", "good"])}
    )
    card = ["---", "configs:"]
    for config in ("en", "si"):
        card += [f"- config_name: {config}", "  data_files:"]
        for split in ("train", "validation", "test"):
            (folder / config).mkdir(parents=True, exist_ok=True)
            rows = {"body": [f"{config} {split} {number}" for number in range(3)], "stars": [0, 1, 1]}
            datasets.Dataset.from_dict(rows, features).to_parquet(folder / config / f"{split}.parquet")
            card += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*card, "---"]))
    return folder


def task(*data):
    return Task("reviews", HubSource(data), label_words=WORDS)


def hub_dataset(repository, **options):
    configs = {"eng_Latn": "en", "sin_Sinh": "si"}
    columns = {"text": "body", "label": "stars"}
    return HubDataset(str(repository), **{"configs": configs, "columns": columns, **options})


def test_configuration_split_columns_and_class_labels(repository):
    split = task(hub_dataset(repository)).load("test", "sin_Sinh")
    assert [(e.fields, e.label, e.row) for e in split] == [
        ({"text": "si test 0"}, "Negative", 0),
        ({"text": "si test 1"}, "Positive", 1),
        ({"text": "si test 2"}, "Positive", 2),
    ]
    assert split.report.source == f"{repository}/si/test"


def test_dev_is_the_hubs_validation_split(repository):
    assert task(hub_dataset(repository)).load("dev", "eng_Latn").examples[0].fields["text"] == "en validation 0"


def test_only_declared_splits_and_languages_exist(repository):
    found = task(hub_dataset(repository, splits={"train": "train"}))
    assert found.languages("test") == []
    with pytest.raises(DataError, match=r"expected test data, found none: .* has the splits train"):
        found.load("test", "eng_Latn")
    with pytest.raises(DataError, match=r"found 'sin_Sin'\. Did you mean 'sin_Sinh'\?"):
        task(hub_dataset(repository)).load("test", "sin_Sin")


def test_without_a_list_the_configurations_are_the_languages(repository):
    assert task(hub_dataset(repository, configs=None)).languages("test") == ["en", "si"]


def test_languages_may_come_from_several_repositories(repository):
    english = hub_dataset(repository, configs={"eng_Latn": "en"})
    sinhala = hub_dataset(repository, configs={"sin_Sinh": "si", "eng_Latn": "si"}, splits={"test": "test"})
    found = task(english, sinhala)
    assert found.languages("train") == ["eng_Latn"]
    assert found.languages("test") == ["eng_Latn", "sin_Sinh"]
    assert found.load("test", "sin_Sinh").examples[0].fields["text"] == "si test 0"
    assert found.load("test", "eng_Latn").examples[0].fields["text"] == "en test 0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"configs": {"eng_Latn": "xx"}},
            r"hub data set .*/xx/test: expected to load it, found ValueError.*xx",
        ),
        ({"splits": {"test": "tset"}}, r"hub data set .*/tset: expected to load it, found ValueError.*tset"),
        (
            {"columns": {"text": "bodies"}},
            r"expected a column 'bodies', 'label', found the columns 'body', 'stars'",
        ),
    ],
)
def test_wrong_names_are_told_with_their_cause(repository, options, message):
    with pytest.raises(DataError, match=message):
        task(hub_dataset(repository, **options)).load("test", "eng_Latn")


def test_a_repository_out_of_reach_points_to_a_local_copy(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    with pytest.raises(
        DataError, match=r"mteb/NusaX-senti@\w+/eng/train: .* found ConnectionError: no route .*with path="
    ) as caught:
        get_task("nusax").load("train", "eng_Latn")
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(DataError, match=r"hub data set Davlan/sib200: .* no route"):
        get_task("sib200").languages("test")


@pytest.fixture
def hub(monkeypatch):
    """Replaces the downloader by tables in memory and records what was asked for."""
    asked = []

    def provide(rows, features=None):
        def load_dataset(repo, name=None, split=None, revision=None, data_files=None):
            asked.append((repo, data_files or name, split, revision))
            return datasets.Dataset.from_dict(rows, features)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return provide


def test_unnamed_integer_labels_take_their_names_from_the_task(hub):
    asked = hub({"text": ["a", "b", "c"], "label": [0, 2, 1]})
    split = get_task("nusax").load("test", "jav_Latn")
    assert [example.label for example in split] == ["negative", "positive", "neutral"]
    assert [request[:3] for request in asked] == [("mteb/NusaX-senti", "jav", "test")]


def test_hidden_absent_and_unknown_labels_are_faults(hub):
    hub({"text": ["a", "b", "c", "d"], "label": [0, -1, None, 7]})
    split = get_task("nusax", on_invalid_row="skip").load("test", "jav_Latn")
    assert (split.report.kept, split.report.missing_label, split.report.unknown_label) == (1, 2, 1)
    assert "mteb/NusaX-senti" in split.report.problems[0]
    assert "row 1, column 'label': expected a label, found none" in split.report.problems[0]


def test_string_labels_and_renamed_columns(hub):
    asked = hub({"index_id": [1], "category": ["science/technology"], "text": ["x"]})
    source = HubSource([HubDataset("Davlan/sib200", {"sin_Sinh": "sin_Sinh"}, columns={"label": "category"})])
    assert get_task("sib200", source=source).load("test", "sin_Sinh").examples[0].label == "technology"
    assert asked == [("Davlan/sib200", "sin_Sinh", "test", None)]


def test_indicxnli_trains_on_xnlis_english_and_tests_on_its_own_languages(hub):
    asked = hub({"premise": ["p"], "hypothesis": ["h"], "label": [2]})
    task = get_task("indicxnli")
    task.load("train", "eng_Latn")
    assert task.load("test", "ory_Orya").examples[0].label == "Contradiction"
    assert asked == [
        ("facebook/xnli", "en", "train", "b8dd5d7af51114dbda02c0e3f6133f332186418e"),
        ("Divyanshu/indicxnli", {"test": "or/test/*.parquet"}, "test", "refs/convert/parquet"),
    ]


def test_xnli_takes_class_labels_and_flores_codes(hub):
    names = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    text = datasets.Value("string")
    features = datasets.Features({"premise": text, "hypothesis": text, "label": names})
    asked = hub({"premise": ["p"], "hypothesis": ["h"], "label": [1]}, features)
    assert get_task("xnli").load("test", "urd_Arab").examples[0].label == "Neutral"
    assert asked[0][:3] == ("facebook/xnli", "ur", "test")


def test_integer_labels_without_names_are_taken_as_they_are(hub):
    hub({"text": ["x", "y"], "label": [0, 4]})
    split = get_task("amazon-reviews").load("train", "eng_Latn")
    assert [example.label for example in split] == ["Very Negative", "Very Positive"]


def test_sinhala_news_takes_each_languages_own_split(hub):
    asked = hub({"sentence": ["x"], "label": ["Political"]})
    task = get_task("sinhala-news")
    task.load("train", "eng_Latn")
    task.load("test", "sin_Sinh")
    assert [request[1:3] for request in asked] == [(None, "train_en"), (None, "test_si")]
    assert task.languages("dev") == []


def test_masakhanews_reads_headlines(hub):
    asked = hub({"headline": ["h"], "text": ["body"], "category": ["religion"]})
    example = get_task("masakhanews").load("test", "swh_Latn").examples[0]
    assert (example.fields, example.label) == ({"text": "h"}, "religion")
    assert asked[0][:3] == ("masakhane/masakhanews", "swa", "test")
