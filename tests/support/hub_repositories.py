"""The repositories of the named tasks, laid out as on the hub, with a row for each label.

Where a layout was read, it says so; the rest is how `datasets` uploads a data set (`push_to_hub`). The files of
facebook/xnli, mteb/AmazonReviewsClassification, Davlan/sib200 and masakhane/masakhanews were seen in file lists or
cards, those of Divyanshu/indicxnli in the history of its Parquet conversion and in code that reads it. Not known: the
card of mteb/NusaX-senti, everything about Themira/en_si_news_classification_with_label_name but its splits and
columns, and whether IndicXNLI's conversion stores names of its labels (here it does not, the harder case).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets import (
    ClassLabel,
    Dataset,
    Features,
    Translation,
    TranslationVariableLanguages,
    Value,
    disable_progress_bars,
)

SPLITS = ("train", "validation", "test")
XNLI = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
INDIC = ["as", "bn", "gu", "hi", "kn", "ml", "mr", "or", "pa", "ta", "te"]
AMAZON = ["de", "en", "es", "fr", "ja", "zh"]
NUSAX = ["ace", "ban", "bbc", "bjn", "bug", "eng", "ind", "jav", "mad", "min", "nij", "sun"]
MASAKHANEWS = [
    "amh",
    "eng",
    "fra",
    "hau",
    "ibo",
    "lin",
    "lug",
    "orm",
    "pcm",
    "run",
    "sna",
    "som",
    "swa",
    "tir",
    "xho",
    "yor",
]
SIB = ["ace_Arab", "amh_Ethi", "eng_Latn", "sin_Sinh", "yor_Latn"]  # of 205

NLI = ("entailment", "neutral", "contradiction")
NEWS = ("business", "entertainment", "health", "politics", "religion", "sports", "technology")
TOPICS = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")
CATEGORIES = ("Business", "Entertainment", "Political", "Sports", "Science")

Columns = dict[str, list[Any]]


def text(what: str, config: str, split: str, number: int) -> str:
    """A text that no other place has, with what spoils badly read tables."""
    return f'{what} {number} of "{config}", {split}: වචන, "බස'


def _texts(what: str, config: str, split: str, count: int) -> list[Any]:
    return [text(what, config, split, number) for number in range(count)]


def _parquet(columns: Columns, path: Path, features: Features | None = None) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    return Dataset.from_dict(columns, features).to_parquet(path)


def _tsv(columns: Columns, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")  # as pandas writes
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _card(folder: Path, files: Mapping[str, Mapping[str, str]], info: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes a card; `files` has the path of each split by configuration."""
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in files.items()
    ]
    header = yaml.safe_dump({"license": "other", "dataset_info": list(info), "configs": configs}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{header}---\n\n# A data set\n", "utf8")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n")


def _uploaded(folder: Path, configs: Sequence[str], columns: Callable[[str, str], Columns], features: Features) -> None:
    """Writes configurations as `push_to_hub` does."""
    infos = []
    for config in configs:
        splits = []
        for split in SPLITS:
            table = columns(config, split)
            size = _parquet(table, folder / config / f"{split}-00000-of-00001.parquet", features)
            splits.append({"name": split, "num_bytes": size, "num_examples": len(next(iter(table.values())))})
        infos.append(
            {"config_name": config, "features": features._to_yaml_list(), "splits": splits, "download_size": 1}
        )
    _card(folder, {config: {split: f"{config}/{split}-*" for split in SPLITS} for config in configs}, infos)


def _nli(config: str, split: str) -> Columns:
    sides = {side: _texts(side, config, split, 3) for side in ("premise", "hypothesis")}
    return {**sides, "label": [0, 1, 2]}


def facebook_xnli(folder: Path) -> None:
    """Also has a configuration `all_languages`, the first of its card, whose training split is in several files."""
    label = ClassLabel(names=list(NLI))
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": label})
    _uploaded(folder, XNLI, _nli, features)
    every = Features(
        {"premise": Translation(XNLI), "hypothesis": TranslationVariableLanguages(XNLI, 15), "label": label}
    )
    row = {"language": XNLI, "translation": XNLI}
    table: Columns = {"premise": [{code: code for code in XNLI}], "hypothesis": [row], "label": [0]}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        _parquet(table, folder / "all_languages" / f"{name}.parquet", every)
    header = yaml.safe_load((folder / "README.md").read_text("utf8").split("---")[1])
    names = {config: {split: f"{config}/{split}-*" for split in SPLITS} for config in ("all_languages", *XNLI)}
    _card(folder, names, header["dataset_info"])


def indicxnli(folder: Path) -> None:
    """The revision refs/convert/parquet: no card."""
    for config in INDIC:
        for split in SPLITS:
            _parquet(_nli(config, split), folder / config / split / "0000.parquet")
    (folder / ".gitattributes").write_text("hi/train/0000.parquet filter=lfs diff=lfs merge=lfs -text\n")


def amazon_reviews(folder: Path) -> None:
    """Stars are integers without names."""

    def columns(config: str, split: str) -> Columns:
        return {"text": _texts("review", config, split, 5), "label": [0, 1, 2, 3, 4]}

    _uploaded(folder, AMAZON, columns, Features({"text": Value("string"), "label": Value("int64")}))


def nusax(folder: Path) -> None:
    """Labels are integers without names."""

    def columns(config: str, split: str) -> Columns:
        return {"id": ["0", "1", "2"], "text": _texts("tweet", config, split, 3), "label": [0, 1, 2]}

    _uploaded(
        folder, NUSAX, columns, Features({"id": Value("string"), "text": Value("string"), "label": Value("int64")})
    )


def sinhala_news(folder: Path) -> None:
    """One configuration; the languages are splits."""
    splits = ("train_en", "test_en", "test_si")
    for split in splits:
        table = {"sentence": _texts("news", "default", split, 5), "label": list(CATEGORIES)}
        _parquet(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    _card(folder, {"default": {split: f"data/{split}-*" for split in splits}})


def _tsv_configs(folder: Path, configs: Sequence[str], columns: Callable[[str, str], Columns]) -> None:
    stems = {"train": "train", "validation": "dev", "test": "test"}
    for config in configs:
        for split, stem in stems.items():
            _tsv(columns(config, split), folder / "data" / config / f"{stem}.tsv")
    paths = {c: {split: f"data/{c}/{stem}.tsv" for split, stem in stems.items()} for c in configs}
    _card(folder, paths)


def sib200(folder: Path) -> None:
    """TSV files in data/, beside a list of the labels that is no data."""

    def columns(config: str, split: str) -> Columns:
        return {"index_id": [*range(7)], "category": list(TOPICS), "text": _texts("sentence", config, split, 7)}

    _tsv_configs(folder, SIB, columns)
    for config in SIB:
        (folder / "data" / config / "labels.txt").write_text("\n".join(TOPICS))


def masakhanews(folder: Path) -> None:
    """TSV files in data/."""

    def columns(config: str, split: str) -> Columns:
        articles = ["several\nlines"] * 7
        headlines = _texts("headline", config, split, 7)
        return {"category": list(NEWS), "headline": headlines, "text": articles, "url": ["u"] * 7}

    _tsv_configs(folder, MASAKHANEWS, columns)


REPOSITORIES: dict[str, Callable[[Path], None]] = {
    "facebook/xnli": facebook_xnli,
    "Divyanshu/indicxnli": indicxnli,
    "mteb/AmazonReviewsClassification": amazon_reviews,
    "mteb/NusaX-senti": nusax,
    "Themira/en_si_news_classification_with_label_name": sinhala_news,
    "Davlan/sib200": sib200,
    "masakhane/masakhanews": masakhanews,
}
"""What writes each repository into an empty folder."""


def write_repository(root: Path, repo: str) -> Path:
    """Writes a repository into owner/name below `root` as `hf download` does, and returns that folder."""
    folder = root / repo
    folder.mkdir(parents=True)
    REPOSITORIES[repo](folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        note = folder / ".cache/huggingface/download" / f"{path.relative_to(folder)}.metadata"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("commit\netag\n0.0\n")
    return folder
