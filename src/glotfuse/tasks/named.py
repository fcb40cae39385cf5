"""The named tasks: label words, templates and languages, for the hub and for local copies alike.

The templates and label words of XNLI, IndicXNLI, Amazon reviews and Sinhala news are those of "Utilizing
Multilingual Encoders to Improve Large Language Models for Low-Resource Languages" (arXiv 2508.09091).
Language codes are those of Flores-200 throughout; each data set's own codes stand only in this file.

Where the hub names come from (documentation and public code, read in 2026; nothing was downloaded):

- facebook/xnli: file list and card (Parquet, one configuration a language, class labels 0-2).
- Divyanshu/indicxnli: loading script (11 languages), history and users of its Parquet conversion (the files are
  hi/train/0000.parquet and so on, without a card). It holds no English; English comes from facebook/xnli. Its
  integers are named like XNLI's.
- mteb/AmazonReviewsClassification: card (text, label 0-4; 200,000 train, 5,000 validation, 5,000 test rows).
- Davlan/sib200: card (one configuration a language, columns text and category), file list, and code that asks for
  configurations at this commit.
- mteb/NusaX-senti: code that uses it; the order negative, neutral, positive is the original card's.
- masakhane/masakhanews: code that uses it (columns headline and category). It was a script until 2025; at this
  commit it is TSV files and a card that names the configurations, and code asks for them there.
- Themira/en_si_news_classification_with_label_name: code that uses it (columns sentence and label, splits
  train_en, test_en and test_si); it may not be public. The better known
  NLPC-UOM/Sinhala-News-Category-classification is Sinhala only, has one split, called train, and unnamed
  integer labels: there is no English to train on and no test split in it, so it is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from glotfuse.tasks.files import FileSource
from glotfuse.tasks.hub import CONVERTED, HubDataset, HubSource
from glotfuse.tasks.task import Task


@dataclass(frozen=True)
class NamedTask:
    """A named task and what a local copy of its data needs to be read.

    Attributes:
        build: Makes the task with its usual source.
        aliases: Language names used in the data set's own folders, with their codes.
    """

    build: Callable[[], Task]
    aliases: Mapping[str, str] = field(default_factory=dict)


XNLI_CONFIGS = {
    "arb_Arab": "ar",
    "bul_Cyrl": "bg",
    "deu_Latn": "de",
    "ell_Grek": "el",
    "eng_Latn": "en",
    "spa_Latn": "es",
    "fra_Latn": "fr",
    "hin_Deva": "hi",
    "rus_Cyrl": "ru",
    "swh_Latn": "sw",
    "tha_Thai": "th",
    "tur_Latn": "tr",
    "urd_Arab": "ur",
    "vie_Latn": "vi",
    "zho_Hans": "zh",
}
INDIC_CONFIGS = {
    "asm_Beng": "as",
    "ben_Beng": "bn",
    "guj_Gujr": "gu",
    "hin_Deva": "hi",
    "kan_Knda": "kn",
    "mal_Mlym": "ml",
    "mar_Deva": "mr",
    "ory_Orya": "or",
    "pan_Guru": "pa",
    "tam_Taml": "ta",
    "tel_Telu": "te",
}
AMAZON_CONFIGS = {
    "deu_Latn": "de",
    "eng_Latn": "en",
    "spa_Latn": "es",
    "fra_Latn": "fr",
    "jpn_Jpan": "ja",
    "zho_Hans": "zh",
}
NUSAX_LANGUAGES = {  # our code: (configuration on the hub, name in the original repository's folders)
    "ace_Latn": ("ace", "acehnese"),
    "ban_Latn": ("ban", "balinese"),
    "bjn_Latn": ("bjn", "banjarese"),
    "bbc_Latn": ("bbc", "toba_batak"),
    "bug_Latn": ("bug", "buginese"),
    "eng_Latn": ("eng", "english"),
    "ind_Latn": ("ind", "indonesian"),
    "jav_Latn": ("jav", "javanese"),
    "mad_Latn": ("mad", "madurese"),
    "min_Latn": ("min", "minangkabau"),
    "nij_Latn": ("nij", "ngaju"),
    "sun_Latn": ("sun", "sundanese"),
}
MASAKHANEWS_CONFIGS = {
    "amh_Ethi": "amh",
    "eng_Latn": "eng",
    "fra_Latn": "fra",
    "gaz_Latn": "orm",
    "hau_Latn": "hau",
    "ibo_Latn": "ibo",
    "lin_Latn": "lin",
    "lug_Latn": "lug",
    "pcm_Latn": "pcm",
    "run_Latn": "run",
    "sna_Latn": "sna",
    "som_Latn": "som",
    "swh_Latn": "swa",
    "tir_Ethi": "tir",
    "xho_Latn": "xho",
    "yor_Latn": "yor",
}

_NLI_NAMES = ("entailment", "neutral", "contradiction")
_XNLI = HubDataset(
    "facebook/xnli",
    XNLI_CONFIGS,
    label_names={"label": _NLI_NAMES},
    revision="b8dd5d7af51114dbda02c0e3f6133f332186418e",
)
_TOPIC = "Which topic is this text about? Answer with one of: {labels}."
_SENTIMENT = "What is the sentiment of this text? Answer with one of: {labels}."


def _words(*labels: str) -> dict[str, str]:
    """Returns a label map in which each label is its own word."""
    return {label: label for label in labels}


def _nli(name: str, source: HubSource) -> Task:
    return Task(
        name,
        source,
        text_columns=("premise", "hypothesis"),
        label_words=dict(zip(_NLI_NAMES, ("Entailment", "Neutral", "Contradiction"), strict=True)),
        template="Premise: {premise} Hypothesis: {hypothesis} Label: ",
        instruction="Does the premise entail or contradict the hypothesis? Answer with one of: {labels}.",
        cut_column="premise",
    )


def _xnli() -> Task:
    return _nli("xnli", HubSource((_XNLI,)))


def _indicxnli() -> Task:
    indic = HubDataset(
        "Divyanshu/indicxnli",
        INDIC_CONFIGS,
        label_names={"label": _NLI_NAMES},
        revision="refs/convert/parquet",
        data_files=CONVERTED,
    )
    english = replace(_XNLI, configs={"eng_Latn": "en"})
    return _nli("indicxnli", HubSource((english, indic)))


def _sinhala_news() -> Task:
    repo = "Themira/en_si_news_classification_with_label_name"
    english = HubDataset(repo, {"eng_Latn": None}, splits={"train": "train_en", "test": "test_en"})
    sinhala = HubDataset(repo, {"sin_Sinh": None}, splits={"test": "test_si"})
    return Task(
        "sinhala-news",
        HubSource((english, sinhala)),
        text_columns=("sentence",),
        label_words=_words("Business", "Entertainment", "Political", "Sports", "Science"),
        template="News Sentence: {sentence} Category: ",
        instruction="Which category does this news sentence belong to? Answer with one of: {labels}.",
    )


def _amazon_reviews() -> Task:
    words = ("Very Negative", "Negative", "Neutral", "Positive", "Very Positive")
    revision = "6b5d328eaae8ef408dd7d775040245cf86f92e9d"
    return Task(
        "amazon-reviews",
        HubSource((HubDataset("mteb/AmazonReviewsClassification", AMAZON_CONFIGS, revision=revision),)),
        label_words={str(stars): word for stars, word in enumerate(words)},
        template="Review: {text} Label: ",
        instruction="How does the reviewer rate the product? Answer with one of: {labels}.",
    )


def _sib200() -> Task:
    topics = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")
    revision = "38977a667f6fc264d5c26ec57a01e16db040b358"
    return Task(
        "sib200",
        HubSource((HubDataset("Davlan/sib200", columns={"label": "category"}, revision=revision),)),
        label_words={topic: topic.removeprefix("science/") for topic in topics},
        instruction=_TOPIC,
    )


def _nusax() -> Task:
    labels = ("negative", "neutral", "positive")
    configs = {language: config for language, (config, _) in NUSAX_LANGUAGES.items()}
    revision = "7b2ff4facde8a6473f667a38edef1d03ce9ca0dc"
    data = HubDataset("mteb/NusaX-senti", configs, label_names={"label": labels}, revision=revision)
    return Task("nusax", HubSource((data,)), label_words=_words(*labels), instruction=_SENTIMENT)


def _masakhanews() -> Task:
    columns = {"text": "headline", "label": "category"}
    revision = "fa3b5fff8a91d187bf0c5900a39c4271d08cf7fe"
    data = HubDataset("masakhane/masakhanews", MASAKHANEWS_CONFIGS, columns=columns, revision=revision)
    return Task(
        "masakhanews",
        HubSource((data,)),
        label_words=_words("business", "entertainment", "health", "politics", "religion", "sports", "technology"),
        instruction=_TOPIC,
    )


def _quickstart() -> Task:
    topics = ("sports", "health", "politics", "business", "technology", "cooking", "weather", "music")
    folder = Path(str(resources.files("glotfuse.tasks"))) / "data" / "quickstart"
    return Task("quickstart", FileSource(folder), label_words=_words(*topics), instruction=_TOPIC)


NAMED_TASKS = {
    "quickstart": NamedTask(_quickstart),
    "xnli": NamedTask(_xnli),
    "indicxnli": NamedTask(_indicxnli),
    "amazon-reviews": NamedTask(_amazon_reviews),
    "sinhala-news": NamedTask(_sinhala_news),
    "sib200": NamedTask(_sib200),
    "nusax": NamedTask(_nusax, aliases={name: language for language, (_, name) in NUSAX_LANGUAGES.items()}),
    "masakhanews": NamedTask(_masakhanews),
}
"""The named tasks, by name."""
