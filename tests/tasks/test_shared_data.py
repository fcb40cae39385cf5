"""Real data, read whole where it is at hand: the numbers are those of the data's own description."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from glotfuse.errors import DataError
from glotfuse.tasks import get_task, sample
from paths import ROOT

FOLDER = Path(os.environ.get("GLOTFUSE_SHARED_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no shared data: set GLOTFUSE_SHARED_DATA to its folder"),
]

XNLI_WORDS = ("Entailment", "Neutral", "Contradiction")


def task(name, **options):
    return get_task(name, path=FOLDER / name, **options)


def test_sib200():
    found = task("sib200")
    assert [len(found.load(split, "eng_Latn")) for split in ("train", "dev")] == [701, 99]
    assert len(found.languages("test")) == 20
    english = [example.label for example in found.load("test", "eng_Latn")]
    for language in found.languages("test"):
        split = found.load("test", language)
        assert [example.label for example in split] == english
        assert (split.report.rows, split.report.dropped) == (204, 0)
        assert len(found.load("dev", language, evaluation=True)) == 99


def test_a_balanced_sample_of_sib200_has_every_label():
    found = task("sib200")
    for language in ("eng_Latn", "khm_Khmr"):
        examples = found.load("test", language).examples  # sorted by label
        assert len({example.label for example in examples[:100]}) == 3
        drawn = Counter(example.label for example in sample(examples, 70, seed=0))
        assert drawn == dict.fromkeys(found.labels, 10)


def test_nusax():
    found = task("nusax")
    assert [len(found.load(split, "eng_Latn")) for split in ("train", "dev")] == [500, 100]
    assert found.languages("test") == ["eng_Latn", "ind_Latn", "jav_Latn", "sun_Latn"]
    for language in found.languages("test"):
        report = found.load("test", language).report
        assert (report.kept, report.dropped) == (400, 0)


def test_xnli():
    found = task("xnli")
    for split, language in (("train", "eng_Latn"), ("dev", "urd_Arab")):
        examples = found.load(split, language, evaluation=True)
        assert Counter(example.label for example in examples) == dict.fromkeys(XNLI_WORDS, 830)
    assert found.languages("test") == []
    assert found.languages("dev", evaluation=True) == ["urd_Arab"]


def test_masakhanews_other_languages():
    found = task("masakhanews")
    kept = {language: len(found.load("test", language)) for language in ("hau_Latn", "swh_Latn", "yor_Latn")}
    assert kept == {"hau_Latn": 637, "swh_Latn": 476, "yor_Latn": 411}


@pytest.mark.parametrize(("split", "rows", "broken"), [("train", 1889, 941), ("dev", 936, 464)])
def test_the_broken_rows_of_masakhanews_english_are_found(split, rows, broken):
    """Every other row is the tail of an article, `/news/...`, with a sentence where the label should be."""
    with pytest.raises(DataError, match=f"found {broken} faulty among {rows}"):
        task("masakhanews").load(split, "eng_Latn")
    report = task("masakhanews", on_invalid_row="skip").load(split, "eng_Latn").report
    assert (report.kept, report.unknown_label) == (rows - broken, broken)
