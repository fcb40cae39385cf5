"""Promises of glotfuse.evaluation.leaks: planted leaks are found, clean data raises no alarm."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product

import pytest

from glotfuse.evaluation.leaks import (
    MIN_CONTAINED,
    Leak,
    TrainingTexts,
    check_languages,
    foreign_rows,
    normalised,
)
from glotfuse.tasks import Example, get_task, task_from_files

LONG = "The harbour authority closed both piers on Tuesday after a container ship drifted into the quay at dawn."
SINHALA = "වරාය අධිකාරිය අඟහරුවාදා ජැටි දෙකම වසා දැමුවේය."


def repeated_rows(training: Sequence[Example], test: Sequence[Example], language: str) -> Leak | None:
    return TrainingTexts(training).repeated(test, language)


def rows(*texts, language="eng_Latn", source="train.tsv"):
    return [Example({"text": text}, "news", language, source, i) for i, text in enumerate(texts, start=1)]


def pairs(*fields):
    return [
        Example({"premise": premise, "hypothesis": hypothesis}, None, "eng_Latn", "pairs.tsv", i)
        for i, (premise, hypothesis) in enumerate(fields, start=1)
    ]


@pytest.mark.parametrize(
    "copy",
    [
        "Rain fell all night.",
        "  rain FELL,all night ",
        "“Rain fell – all night!”",
        "Ｒａｉｎ fell all\tnight...",
        "𝐑𝐀𝐈𝐍 fell all night",  # letters that have no small form before they are normalised
        "Rain\u200b fell\u00a0all ni\u00adght",
    ],
)
def test_a_test_row_that_repeats_training_is_found_however_it_is_written(copy):
    training = rows("Something else.", "Rain fell all night.", "Rain fell all night.")
    leak = repeated_rows(training, rows("A new row.", copy, source="test.tsv"), "eng_Latn")
    assert leak is not None
    assert (leak.kind, leak.language, leak.count, leak.total) == ("repeated rows", "eng_Latn", 1, 2)
    assert "test.tsv, row 2 repeats train.tsv, row 2" in leak.examples[0]
    assert leak.summary().startswith("repeated rows, English (eng_Latn): 1 of 2 rows; ")
    assert str(leak) == leak.summary()


def test_marks_of_abugidas_are_part_of_the_text():
    assert repeated_rows(rows("කි"), rows("කු"), "sin_Sinh") is None
    assert repeated_rows(rows("ක්‍රීඩාව"), rows("ක්රීඩාව"), "sin_Sinh") is not None  # with and without joiner


def test_texts_of_punctuation_alone_are_not_all_the_same():
    assert repeated_rows(rows("?!", "…"), rows("!!", ":-)"), "eng_Latn") is None
    assert repeated_rows(rows("?!"), rows("?!"), "eng_Latn") is not None


@pytest.mark.parametrize("inside", ["test in training", "training in test"])
def test_a_long_text_inside_another_is_found_wherever_it_stands(inside):
    for shift in range(60):
        longer = "x" * shift + LONG + " Nobody was hurt, the harbour master said."
        training, test = (longer, LONG) if inside == "test in training" else (LONG, longer)
        leak = repeated_rows(rows("Unrelated.", training), rows("New.", test, test), "eng_Latn")
        assert leak is not None, shift
        assert leak.count == 2
        assert "row 3 repeats train.tsv, row 2" in leak.examples[1]


def test_containment_begins_at_50_characters():
    assert MIN_CONTAINED == 50
    shortest = "".join(random.Random(0).choices("abcdefghij", k=MIN_CONTAINED))
    assert repeated_rows(rows(f"so {shortest} so"), rows(shortest), "eng_Latn") is not None
    assert repeated_rows(rows(f"so {shortest[1:]} so"), rows(shortest[1:]), "eng_Latn") is None
    assert repeated_rows(rows(shortest[1:]), rows(f"so {shortest[1:]} so"), "eng_Latn") is None


def test_all_pairs_compared_one_by_one_give_the_same_rows():
    choose = random.Random(1)
    words = ["ab", "ba", "aab", "bbb", "c"]  # few words: many near misses and repeated blocks

    def text():
        return "".join(choose.choices(words, k=choose.randint(15, 60)))

    training = [text() for _ in range(150)]
    test = [text() for _ in range(50)]
    for i in range(0, 50, 4):
        start, end = sorted(choose.sample(range(len(training[i]) + 1), 2))
        test[i] = training[i][start:end] or "c"
        training[i + 100] = test[i + 1][start:end] or "c"
    expected = 0
    for one in test:
        expected += any(
            one == other or (min(len(one), len(other)) >= MIN_CONTAINED and (one in other or other in one))
            for other in training
        )
    leak = repeated_rows(rows(*training), rows(*test), "eng_Latn")
    assert leak is not None
    assert 0 < expected < 20
    assert leak.count == expected


def test_rows_of_several_columns_are_compared_as_a_whole():
    training = pairs((LONG, "A ship drifted."), ("It rained.", "It was wet."))
    assert repeated_rows(training, pairs((LONG, "The piers were open.")), "eng_Latn") is None
    assert repeated_rows(training, pairs(("it rained", "It was wet!")), "eng_Latn") is not None
    assert repeated_rows(training, pairs(("It rained. It was", "wet.")), "eng_Latn") is None


def test_the_first_rows_are_shown_and_all_are_counted():
    texts = [f"Row number {i}." for i in range(40)]
    leak = repeated_rows(rows(*texts), rows(*texts, LONG), "eng_Latn")
    assert leak is not None
    assert (leak.count, leak.total, len(leak.examples)) == (40, 41, 5)


def test_the_time_does_not_grow_with_the_number_of_pairs():
    # 40,000 by 2,000 rows that share a long beginning, every pair a candidate: one by one they would take minutes
    head = "the following sentence was taken from the minutes of the council and reads as follows "
    training = rows(*(f"{head} {i * 7919 % 1_000_003} end" for i in range(40_000)))
    test = rows(*(f"{head} {i} no" for i in range(2_000)), f"{head} 7919 end of it")
    started = time.perf_counter()
    leak = repeated_rows(training, test, "eng_Latn")
    assert leak is not None
    assert leak.count == 1
    assert time.perf_counter() - started < 15


def test_the_quickstart_data_raises_no_alarm():
    task = get_task("quickstart")
    training, dev = task.load("train", "eng_Latn").examples, task.load("dev", "eng_Latn").examples
    seen = TrainingTexts([*training, *dev])
    languages = task.languages("test")
    assert len(languages) == 14
    for language in languages:
        test = task.load("test", language).examples
        assert seen.repeated(test, language) is None
        assert foreign_rows(test, language) is None
    assert [foreign_rows(part, "eng_Latn") for part in (training, dev)] == [None, None]
    assert repeated_rows(training, dev, "eng_Latn") is None
    assert check_languages(task) == []


def test_a_quickstart_row_planted_in_training_is_found_in_its_language_alone():
    task = get_task("quickstart")
    planted = task.load("test", "tam_Taml").examples[17]
    seen = TrainingTexts([*task.load("train", "eng_Latn").examples, planted])
    found = {
        language: seen.repeated(task.load("test", language).examples, language) for language in task.languages("test")
    }
    assert [language for language, leak in found.items() if leak] == ["tam_Taml"]
    assert found["tam_Taml"].count == 1


def test_rows_in_another_script_are_found():
    training = rows("A plain row.", SINHALA, LONG)
    leak = foreign_rows(training, "eng_Latn")
    assert leak is not None
    assert (leak.kind, leak.language, leak.count, leak.total) == ("other script", "eng_Latn", 1, 3)
    assert leak.examples == (f"train.tsv, row 2: {SINHALA}",)
    assert "English" in leak.advice
    assert "Latin script" in leak.advice


@pytest.mark.parametrize(
    "text",
    [
        "2024-11-05 12:30 +94 11 234 5678 !!! 🎉🎉🎉🎉🎉🎉🎉🎉🎉",
        "०१२३४५६७८९ ০১২৩৪৫৬৭৮৯",
        "Москва",  # a single name
        "The word вода means water in several Slavic languages.",
        "Ein ganz gewöhnlicher deutscher Satz mit Umlauten: äöüß.",  # the same script: nothing is claimed
        "ｆｕｌｌｗｉｄｔｈ ｌｅｔｔｅｒｓ",
    ],
)
def test_numbers_names_quotations_and_other_languages_in_the_script_are_no_leak(text):
    assert foreign_rows(rows(text), "eng_Latn") is None


@pytest.mark.parametrize(
    ("language", "own", "foreign"),
    [
        ("jpn_Jpan", "コーヒーを一杯飲みたいです。", "커피 한 잔 마시고 싶어요."),
        ("kor_Hang", "커피 한 잔 마시고 싶어요.", "コーヒーを一杯飲みたいです。"),
        ("zh", "我想喝一杯热咖啡再出门。", "Ein Kaffee wäre schön."),
        ("hin_Deva", "मुझे एक कप कॉफी चाहिए। OK", "mujhe ek cup coffee chahiye"),
        ("hin_Latn", "mujhe ek cup coffee chahiye", "मुझे एक कप कॉफी चाहिए।"),
        ("urd_Arab", "مجھے ایک کپ کافی چاہیے۔", SINHALA),
        ("amh_Ethi", "ሐኪሞች አረጋውያን እንዲተኙ ይመክራሉ።", "Doctors advise the elderly to sleep."),
        ("sat_Beng", "ᱢᱤᱫ ᱠᱟᱯ ᱠᱚᱯᱷᱤ ᱧᱩ ᱥᱟᱱᱟᱧ ᱠᱟᱱᱟ", "এক কাপ কফি খেতে চাই"),
    ],
)
def test_the_script_of_a_language_is_known_in_all_its_parts(language, own, foreign):
    assert foreign_rows(rows(own), language) is None
    leak = foreign_rows(rows(own, foreign), language)
    assert leak is not None
    assert leak.count == 1


def test_the_limit_is_two_thirds_of_the_letters():
    assert foreign_rows(rows("вода " * 8 + "four " * 4), "eng_Latn") is None
    assert foreign_rows(rows("вода " * 9 + "four " * 4), "eng_Latn") is not None
    names = "埃尔斯沃思地 (Ellsworth Land) 位于该半岛的南部，面朝别林斯高晋海 (Bellingshausen Sea)。"
    assert foreign_rows(rows(names), "zho_Hans") is None


def test_nothing_is_claimed_where_the_script_is_unknown():
    assert foreign_rows(rows(SINHALA), "my own language") is None
    assert foreign_rows(rows(SINHALA), "xyz_Abcd") is None


@pytest.fixture
def folder(tmp_path):
    for split, code in [
        *product(("train", "dev"), ["swh_Latn", "eng_Latn"]),
        *product(["test"], ["sw", "eng", "yor_Latn"]),
    ]:
        (tmp_path / code).mkdir(exist_ok=True)
        (tmp_path / code / f"{split}.tsv").write_text("text\tlabel\nmaji\ta\nmoto\tb\n", "utf8")
    return tmp_path


def test_a_measured_language_that_taught_the_model_is_not_zero_shot(folder):
    leaks = check_languages(task_from_files(folder, train_language="swh_Latn"))
    assert [(leak.kind, leak.language) for leak in leaks] == [("not zero-shot", "sw")]
    assert "training and development" in leaks[0].advice
    assert leaks[0].summary().startswith("not zero-shot, Swahili (sw): it was")


def test_training_on_english_is_the_usual_case(folder):
    assert check_languages(task_from_files(folder)) == []


def test_languages_that_chose_the_model_are_found_in_any_script(folder):
    task = task_from_files(folder)
    leaks = check_languages(task, chosen_on=["en", "zho_Hans"], measured=["eng_Latn", "zh-TW", "tam_Taml"])
    assert [(leak.kind, leak.language) for leak in leaks] == [("not zero-shot", "zh-TW")]
    assert "a language of development." in leaks[0].advice


def test_development_rows_that_chose_are_no_measurement(folder):
    leaks = check_languages(task_from_files(folder), split="validation")
    assert [(leak.kind, leak.language) for leak in leaks] == [("chosen on measured rows", "eng_Latn")]


def test_normalising_keeps_columns_apart():
    [pair] = pairs(("It rained.", "It was wet."))
    assert normalised(pair) == "itrained\x1fitwaswet"


def test_leaks_and_language_facts_are_found_without_torch():
    code = "import sys, glotfuse.evaluation.leaks, glotfuse.languages.facts; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
