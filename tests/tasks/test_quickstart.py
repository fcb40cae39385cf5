"""The quickstart data: complete, balanced, parallel, and without the answer in the text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest

from glotfuse.tasks import get_task

TOPICS = ["sports", "health", "politics", "business", "technology", "cooking", "weather", "music"]
SCRIPTS = {
    "Latn": "LATIN",
    "Sinh": "SINHALA",
    "Taml": "TAMIL",
    "Mlym": "MALAYALAM",
    "Beng": "BENGALI",
    "Deva": "DEVANAGARI",
    "Arab": "ARABIC",
    "Ethi": "ETHIOPIC",
    "Mymr": "MYANMAR",
    "Khmr": "KHMER",
}
LANGUAGES = [
    "amh_Ethi",
    "ben_Beng",
    "eng_Latn",
    "hin_Deva",
    "ind_Latn",
    "khm_Khmr",
    "mal_Mlym",
    "mya_Mymr",
    "sin_Sinh",
    "swh_Latn",
    "tam_Taml",
    "tur_Latn",
    "urd_Arab",
    "yor_Latn",
]


@pytest.fixture(scope="module")
def task():
    return get_task("quickstart")


def test_training_and_dev_are_english_and_the_test_has_14_languages(task):
    for split in ("train", "dev"):
        assert task.source.languages(split) == ["eng_Latn"]
    assert task.languages("test") == LANGUAGES
    assert task.missing_languages("test") == []
    assert task.labels == TOPICS


@pytest.mark.parametrize(("split", "per_topic"), [("train", 40), ("dev", 10), ("test", 12)])
def test_english_is_balanced(task, split, per_topic):
    examples = task.load(split, "eng_Latn")
    assert Counter(example.label for example in examples) == dict.fromkeys(TOPICS, per_topic)
    assert examples.report.duplicates == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_test_rows_are_parallel(task, language):
    english = task.load("test", "eng_Latn")
    translated = task.load("test", language)
    assert [example.label for example in translated] == [example.label for example in english]
    assert translated.report.duplicates == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_written_in_the_script_of_their_language(task, language):
    for example in task.load("test", language):
        letters = [character for character in example.fields["text"] if character.isalpha()]
        own = [c for c in letters if unicodedata.name(c).startswith(SCRIPTS[language[4:]])]
        assert len(own) > 0.8 * len(letters), example


def test_training_and_dev_texts_have_8_to_30_words(task):
    for split in ("train", "dev"):
        for example in task.load(split, "eng_Latn"):
            assert 8 <= len(example.fields["text"].split()) <= 30, example


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_no_english_text_names_a_topic(task, split):
    answer = re.compile(rf"\b({'|'.join(TOPICS)})\b", re.IGNORECASE)
    assert [e for e in task.load(split, "eng_Latn") if answer.search(e.fields["text"])] == []


def test_no_text_occurs_in_two_splits(task):
    texts = {s: {e.fields["text"].casefold() for e in task.load(s, "eng_Latn")} for s in ("train", "dev", "test")}
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]


def test_the_data_is_found_inside_the_package(task):
    import glotfuse.tasks

    assert task.load("train", "eng_Latn").report.source.startswith(glotfuse.tasks.__path__[0])
