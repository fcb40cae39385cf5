"""Every named task, read by `datasets` itself: from downloaded repositories, and from a hub on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import yaml

from fake_dataset_hub import FakeDatasetHub
from glotfuse.errors import ConfigError, DataError
from glotfuse.recipes.config import TaskConfig
from glotfuse.runs.data import task_of
from glotfuse.tasks import FileSource, HubDataset, HubSource, Task, get_task, task_names
from glotfuse.tasks.hub import _config_names
from hub_repositories import AMAZON, INDIC, MASAKHANEWS, NUSAX, REPOSITORIES, SIB, XNLI, text, write_repository
from paths import ROOT

NLI = ("Entailment", "Neutral", "Contradiction")
TOPICS = ("entertainment", "geography", "health", "politics", "technology", "sports", "travel")
NEWS = ("business", "entertainment", "health", "politics", "religion", "sports", "technology")
WORDS = {  # label words in the order of the rows
    "xnli": NLI,
    "indicxnli": NLI,
    "amazon-reviews": ("Very Negative", "Negative", "Neutral", "Positive", "Very Positive"),
    "sinhala-news": ("Business", "Entertainment", "Political", "Sports", "Science"),
    "sib200": TOPICS,
    "nusax": ("negative", "neutral", "positive"),
    "masakhanews": NEWS,
}
COLUMNS = {  # by column of the task, what the texts begin with
    "xnli": {"premise": "premise", "hypothesis": "hypothesis"},
    "indicxnli": {"premise": "premise", "hypothesis": "hypothesis"},
    "amazon-reviews": {"text": "review"},
    "sinhala-news": {"sentence": "news"},
    "sib200": {"text": "sentence"},
    "nusax": {"text": "tweet"},
    "masakhanews": {"text": "headline"},
}
THEIRS = {  # the data sets' names of languages, in the order of our codes
    "xnli": ["ar", "bg", "de", "el", "en", "fr", "hi", "ru", "es", "sw", "th", "tr", "ur", "vi", "zh"],
    "indicxnli": ["as", "bn", "en", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te"],
    "amazon-reviews": ["de", "en", "fr", "ja", "es", "zh"],
    "sinhala-news": ["en", "si"],
    "sib200": SIB,
    "nusax": ["ace", "ban", "bbc", "bjn", "bug", "eng", "ind", "jav", "mad", "min", "nij", "sun"],
    "masakhanews": [
        "amh",
        "eng",
        "fra",
        "orm",
        "hau",
        "ibo",
        "lin",
        "lug",
        "pcm",
        "run",
        "sna",
        "som",
        "swa",
        "tir",
        "xho",
        "yor",
    ],
}
ENGLISH = {"sib200": "eng_Latn", "nusax": "eng", "masakhanews": "eng"}
HUB_TASKS = [name for name in task_names() if name != "quickstart"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all repositories in owner/name, as `hf download --local-dir` leaves them."""
    folder = tmp_path_factory.mktemp("hub")
    for repo in REPOSITORIES:
        write_repository(folder, repo)
    return folder


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeDatasetHub]:
    """A hub that has each repository at the revision that its task names, and nothing at any other."""
    found = {}
    for name in HUB_TASKS:
        for data in sources(get_task(name)):
            found[data.repo] = {data.revision or "main": root / data.repo}
    served = FakeDatasetHub(found)
    served.use(monkeypatch, tmp_path)
    _config_names.cache_clear()  # what another hub answered, and after the test what this one did
    yield served
    _config_names.cache_clear()
    served.close()


def sources(task: Task) -> list[HubDataset]:
    assert isinstance(task.source, HubSource)
    return list(task.source.datasets)


def rows(task: Task, split: str, language: str) -> list[tuple[dict[str, str], str | None]]:
    return [(dict(example.fields), example.label) for example in task.load(split, language, evaluation=True)]


def expected(name: str, split: str, theirs: str) -> list[tuple[dict[str, str], str]]:
    config, stored = theirs, {"train": "train", "dev": "validation", "test": "test"}[split]
    if name == "sinhala-news":
        config, stored = "default", f"{stored}_{theirs}"
    starts = COLUMNS[name].items()
    return [
        ({column: text(start, config, stored, number) for column, start in starts}, word)
        for number, word in enumerate(WORDS[name])
    ]


def test_every_named_task_has_its_repositories_here():
    assert {data.repo for name in HUB_TASKS for data in sources(get_task(name))} == set(REPOSITORIES)
    assert set(HUB_TASKS) == set(WORDS) == set(COLUMNS) == set(THEIRS)
    assert [sorted(THEIRS[name]) for name in ("xnli", "amazon-reviews", "nusax", "masakhanews")] == [
        XNLI,
        AMAZON,
        NUSAX,
        MASAKHANEWS,
    ]
    assert sorted({*THEIRS["indicxnli"]} - {"en"}) == INDIC


@pytest.mark.parametrize("name", HUB_TASKS)
def test_downloaded_repositories_give_every_language_its_rows(root, name):
    task = get_task(name, path=root)
    languages = task.languages("test")
    assert len(languages) == len(THEIRS[name])
    for language, theirs in zip(languages, THEIRS[name], strict=True):
        assert rows(task, "test", language) == expected(name, "test", theirs)


@pytest.mark.parametrize("name", HUB_TASKS)
def test_downloaded_repositories_give_the_english_rows_that_teach_and_choose(root, name):
    task = get_task(name, path=str(root))
    english = ENGLISH.get(name, "en")
    for split in ("train", "dev") if name != "sinhala-news" else ("train",):
        assert task.languages(split) == ["eng_Latn"]
        assert rows(task, split, "eng_Latn") == expected(name, split, english)
    assert name != "sinhala-news" or not task.languages("dev")


@pytest.mark.parametrize("name", HUB_TASKS)
def test_the_hub_gives_the_same_rows_at_the_tasks_revision(hub, name):
    task = get_task(name)
    assert rows(task, "train", "eng_Latn") == expected(name, "train", ENGLISH.get(name, "en"))
    language = task.languages("test")[-1]
    assert rows(task, "test", language) == expected(name, "test", THEIRS[name][-1])


def test_of_the_conversion_only_the_files_that_are_read_are_downloaded(hub):
    get_task("indicxnli").load("test", "hin_Deva")
    files = {request for request in hub.requests if request.endswith(".parquet")}
    assert {file.rpartition("/resolve/")[2].partition("/")[2] for file in files} == {"hi/test/0000.parquet"}


def test_without_names_a_configuration_of_the_conversion_is_not_found(hub):
    by_name = HubDataset("Divyanshu/indicxnli", {"hin_Deva": "hi"}, revision="refs/convert/parquet")
    with pytest.raises(DataError, match="BuilderConfig 'hi' not found"):
        by_name.read("test", "hi", ["premise"])


@pytest.mark.parametrize(("name", "again"), [("nusax", True), ("indicxnli", False)])
def test_without_a_network_what_was_fetched_is_found_by_name_and_no_other_data_stands_in(hub, monkeypatch, name, again):
    task = get_task(name)
    other, fetched = task.languages("test")[0], task.languages("test")[-1]
    task.load("test", fetched)
    hub.close()
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    if again:
        assert rows(task, "test", fetched) == expected(name, "test", THEIRS[name][-1])
    for language in [other] if again else [other, fetched]:
        with pytest.raises(DataError, match=r"Couldn't find cache (?s:.*)path=FOLDER, made by: hf download "):
            task.load("test", language)


def test_a_revision_that_is_gone_is_said(root, hub):
    hub.repositories["Divyanshu/indicxnli"] = {"main": root / "Divyanshu/indicxnli"}
    with pytest.raises(DataError, match=r"Revision 'refs/convert/parquet' doesn't exist"):
        get_task("indicxnli").load("test", "hin_Deva")


@pytest.fixture
def local(root: Path, tmp_path: Path) -> Path:
    """A folder of its own with IndicXNLI's two repositories, to take something away from."""
    for repo in ("facebook/xnli", "Divyanshu/indicxnli"):
        shutil.copytree(root / repo, tmp_path / "hub" / repo)
    return tmp_path / "hub"


def test_a_language_that_was_not_downloaded_is_named_with_what_is_there(local):
    folder = local / "Divyanshu/indicxnli"
    shutil.rmtree(folder / "hi")
    task = get_task("indicxnli", path=local)
    with pytest.raises(DataError) as caught:
        task.load("test", "hin_Deva")
    assert str(caught.value) == (
        f"hub data set Divyanshu/indicxnli: expected hi/test/*.parquet in {folder}, found as/test, as/train, "
        "as/validation, bn/test, bn/train, bn/validation, gu/test, gu/train, gu/validation, kn/test, kn/train, "
        "kn/validation and 18 more. Download the repository as a whole, into an empty folder: hf download "
        f"Divyanshu/indicxnli --repo-type dataset --revision refs/convert/parquet --local-dir {folder}"
    )
    assert rows(task, "test", "ben_Beng") == expected("indicxnli", "test", "bn")


def test_a_split_converted_in_part_is_no_split(local):
    folder = local / "Divyanshu/indicxnli"
    (folder / "hi/test").rename(folder / "hi/partial-test")
    with pytest.raises(DataError, match=r"expected hi/test/\*\.parquet in .*, found as/test"):
        get_task("indicxnli", path=local).load("test", "hin_Deva")


def test_another_revision_of_the_repository_is_told_by_its_files(local):
    folder = local / "Divyanshu/indicxnli"
    shutil.rmtree(folder)
    (folder / "forward/test").mkdir(parents=True)
    for name in ("README.md", "indicxnli.py", "forward/test/xnli_hi.json"):
        (folder / name).write_text("")
    message = r"found README\.md, forward, indicxnli\.py\. Download .* --revision refs/convert/parquet"
    with pytest.raises(DataError, match=message):
        get_task("indicxnli", path=local).load("test", "hin_Deva")


def test_a_repository_that_was_not_downloaded_is_never_asked_from_the_hub(local, monkeypatch):
    shutil.rmtree(local / "facebook/xnli")
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: pytest.fail("asked"))
    with pytest.raises(DataError, match=r"data set facebook/xnli: expected its files in .*, found no such folder"):
        get_task("indicxnli", path=local).load("train", "eng_Latn")


@pytest.mark.parametrize("name", ["ur", "ar"])
def test_a_card_that_names_a_configuration_without_files_is_told_with_the_command(local, name):
    shutil.rmtree(local / "facebook/xnli" / name)
    task = get_task("xnli", path=local)
    languages = {"ur": "urd_Arab", "ar": "arb_Arab"}
    message = rf"xnli/{name}/test: expected to load it, found \w+: .*hf download facebook/xnli --repo-type dataset "
    with pytest.raises(DataError, match=message):
        task.load("test", languages[name])


def test_a_configuration_or_split_that_the_card_does_not_name_is_told_with_those_it_does(local):
    root, folder = local, local / "facebook/xnli"
    card = (folder / "README.md").read_text("utf8")
    header = yaml.safe_load(card.split("---")[1])
    header["configs"] = [config for config in header["configs"] if config["config_name"] != "ur"]
    for config in header["configs"]:
        config["data_files"] = [files for files in config["data_files"] if files["split"] != "test"]
    header.pop("dataset_info")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(header)}---\n", "utf8")
    with pytest.raises(DataError, match=r"'ur' not found. Available: \['all_languages', 'ar', 'bg'"):
        get_task("xnli", path=root).load("test", "urd_Arab")
    with pytest.raises(DataError, match=r'Unknown split "test"\. Should be one of .*train.*validation'):
        get_task("xnli", path=root).load("test", "arb_Arab")


def test_a_script_in_the_folder_is_refused_with_the_command(root, tmp_path):
    folder = write_repository(tmp_path, "masakhane/masakhanews")
    (folder / "masakhanews.py").write_text("raise SystemExit('run')")
    with pytest.raises(DataError, match=r"scripts are no longer supported.*an empty folder: hf download masakhane"):
        get_task("masakhanews", path=tmp_path).load("test", "hau_Latn")


def test_own_files_of_the_same_task_are_still_own_files(tmp_path):
    (tmp_path / "eng_Latn").mkdir()
    (tmp_path / "eng_Latn/train.tsv").write_text("premise\thypothesis\tlabel\nx\ty\tentailment\n")
    assert isinstance(get_task("xnli", path=tmp_path).source, FileSource)


def test_a_language_column_has_no_place_beside_repositories(root):
    with pytest.raises(ConfigError, match=r"expected no language_column for hub repositories in .*found 'lang'"):
        get_task("xnli", path=root, language_column="lang")


def test_a_recipe_names_the_folder_with_task_path(root):
    task = task_of(TaskConfig(name="nusax", path=str(root)))
    assert rows(task, "test", "jav_Latn") == expected("nusax", "test", "jav")
    report = task.load("test", "jav_Latn").report
    assert report.source == f"{root}/mteb/NusaX-senti/jav/test"


@pytest.mark.parametrize("name", HUB_TASKS)
def test_the_tasks_page_names_the_repositories_and_revisions_to_download(name):
    page = (ROOT / "docs/tasks" / f"{name}.md").read_text("utf8")
    for data in sources(get_task(name)):
        assert f"`{data.repo}`" in page
        assert f"`{data.revision}`" in page if data.revision else "newest revision" in page
