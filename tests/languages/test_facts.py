"""Promises of glotfuse.languages.facts."""

from __future__ import annotations

from itertools import product

import pytest

from glotfuse.languages.facts import (
    CC100,
    MC4,
    WIKIPEDIA_102,
    WIKIPEDIA_104,
    LanguageGroup,
    family_of,
    groups_for,
    script_name,
    script_of,
    seen_by,
)
from glotfuse.languages.names import find_language, known_languages

E5, MT5, MBERT, NLLB = "bundled:e5-small", "google/mt5-large", "bert-base-multilingual-cased", "facebook/nllb-200-1.3B"


@pytest.mark.parametrize(
    ("code", "script", "name"),
    [
        ("sin_Sinh", "Sinh", "Sinhala"),
        ("si", "Sinh", "Sinhala"),
        ("Amharic", "Ethi", "Ethiopic"),
        ("zh-TW", "Hant", "Han (traditional)"),
        ("hin_Latn", "Latn", "Latin"),
        ("sat_Beng", "Olck", "Ol Chiki"),  # Flores-200 names Santali by a script that its texts are not in
        ("xyz_cyrl", "Cyrl", "Cyrillic"),
        ("xyz_Cher", "Cher", "Cher"),
        ("klingon", "Zzzz", "unknown script"),
    ],
)
def test_the_script_is_read_from_the_code_or_is_the_usual_one(code: str, script: str, name: str) -> None:
    assert (script_of(code), script_name(code)) == (script, name)


def test_every_known_language_has_a_family_and_a_script_with_a_name() -> None:
    for language in known_languages():
        assert family_of(language.code) is not None, language
        assert script_name(language.code) != "unknown script", language
        assert script_name(language.code) != script_of(language.code) or language.code == "tha_Thai", language


def test_sizes_of_families_are_those_of_glottolog() -> None:
    # Counted in Glottolog's classification of the languages of Flores-200, and of NusaX's three further ones; creoles
    # apart, which Glottolog files under Indo-European and Atlantic-Congo.
    expected = {
        "Afro-Asiatic": 19,
        "Austroasiatic": 3,
        "Austronesian": 18 + 3,
        "Creole": 6,
        "Dravidian": 4,
        "Mande": 3,
        "Nilotic": 3,
        "Sino-Tibetan": 8,
        "Tai-Kadai": 3,
        "Turkic": 11,
        "Uralic": 3,
    }
    families = [family_of(code) for code in {language.code[:3] for language in known_languages()}]
    assert {family: families.count(family) for family in expected} == expected


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("sin_Sinh", "Indo-European"),
        ("tam_Taml", "Dravidian"),
        ("swh_Latn", "Atlantic-Congo"),
        ("yor_Latn", "Atlantic-Congo"),
        ("bam_Latn", "Mande"),
        ("som_Latn", "Afro-Asiatic"),
        ("khm_Khmr", "Austroasiatic"),
        ("tha_Thai", "Tai-Kadai"),
        ("hat_Latn", "Creole"),
        ("eus_Latn", "Isolate"),
        ("epo_Latn", "Constructed language"),
        ("kas_Deva", "Indo-European"),
        ("no such language", None),
    ],
)
def test_families(code: str, family: str | None) -> None:
    assert family_of(code) == family


@pytest.mark.parametrize(
    ("listed", "count", "repeated"),
    [
        (CC100, 100, 2),  # Chinese in two scripts, Burmese in two encodings
        (MC4, 101 + 6, 0),
        (WIKIPEDIA_102, 102, 1),  # Chinese
        (WIKIPEDIA_104, 104, 1),
    ],
)
def test_lists_of_pretraining_languages_are_as_long_as_their_sources_say(
    listed: str, count: int, repeated: int
) -> None:
    codes = listed.split()
    assert len(codes) == len(set(codes)) == count - repeated


def test_nllb_saw_the_202_codes_of_its_tokenizer() -> None:
    assert sum(seen_by(NLLB, language.code) is True for language in known_languages()) == 202
    assert seen_by(NLLB, "min_Latn")
    assert seen_by(NLLB, "min_Arab") is None
    assert seen_by(NLLB, "pcm_Latn") is False


@pytest.mark.parametrize(
    ("encoder", "seen", "unseen"),
    [
        # What papers say of these encoders: MasakhaNEWS and NusaX (which of their languages XLM-R and mBERT have)
        (E5, "swh_Latn amh_Ethi hau_Latn som_Latn xho_Latn gaz_Latn sin_Sinh jav_Latn sun_Latn lao_Laoo", ""),
        (E5, "", "yor_Latn ibo_Latn zul_Latn lug_Latn sna_Latn tir_Ethi pcm_Latn ace_Latn min_Latn tat_Cyrl hat_Latn"),
        (MT5, "yor_Latn ibo_Latn zul_Latn sna_Latn nya_Latn hau_Latn sin_Sinh mri_Latn", "wol_Latn gaz_Latn ory_Orya"),
        (
            MBERT,
            "yor_Latn swh_Latn min_Latn tha_Thai khk_Cyrl azb_Arab",
            "amh_Ethi khm_Khmr sin_Sinh lao_Laoo zul_Latn",
        ),
        (NLLB, "yor_Latn ace_Arab zho_Hant sat_Olck twi_Latn", "nqo_Nkoo bbc_Latn"),
    ],
)
def test_well_known_cases_of_seen_and_unseen(encoder: str, seen: str, unseen: str) -> None:
    assert [code for code in seen.split() if seen_by(encoder, code) is not True] == []
    assert [code for code in unseen.split() if seen_by(encoder, code) is not False] == []


def test_chinese_is_seen_in_both_scripts() -> None:
    for encoder, code in product((E5, MT5, MBERT, NLLB), ("zho_Hans", "zho_Hant", "zh-TW")):
        assert seen_by(encoder, code) is True


def test_thai_and_mongolian_came_with_the_cased_bert() -> None:
    for code in ("tha_Thai", "khk_Cyrl"):
        assert seen_by("google-bert/bert-base-multilingual-uncased", code) is False
        assert seen_by("distilbert/distilbert-base-multilingual-cased", code) is True


@pytest.mark.parametrize("code", ["sw", "swa", "swh_Latn", "Swahili", "sw-KE"])
def test_any_spelling_of_a_language_is_understood(code: str) -> None:
    assert seen_by(E5, code) is True


def test_what_the_list_does_not_settle_is_none() -> None:
    for code in ("arz_Arab", "prs_Arab", "ckb_Arab", "nno_Latn", "yue_Hant", "sin_Latn", "arb_Latn", "unheard of"):
        assert seen_by(E5, code) is None, code
    assert seen_by(MT5, "hrv_Latn") is None  # Serbian is listed, and language identification hardly tells them apart


def test_romanised_text_counts_where_the_list_names_it() -> None:
    assert [seen_by(E5, f"{code}_Latn") for code in ("hin", "tam", "urd", "mar")] == [True, True, True, None]
    assert [seen_by(MT5, f"{code}_Latn") for code in ("hin", "rus", "tam")] == [True, True, None]


@pytest.mark.parametrize(
    ("encoder", "known"),
    [
        ("xlm-roberta-base", True),
        ("FacebookAI/xlm-roberta-large", True),
        ("facebook/xlm-roberta-xl", True),
        ("intfloat/multilingual-e5-large-instruct", True),
        ("microsoft/Multilingual-MiniLM-L12-H384", True),
        ("google/umt5-base", True),
        ("facebook/nllb-200-distilled-600M", True),
        ("facebook/nllb-moe-54b", True),
        ("/data/models/mt5-small/", True),
        ("./xlm-roberta-base", True),
        ("C:\\models\\xlm-roberta-base", True),
        ("Davlan/afro-xlmr-base", False),
        ("someone/xlm-roberta-base", False),
        ("intfloat/e5-small", False),
        ("facebook/xlm-v-base", False),
        ("google-bert/bert-base-cased", False),
        ("xlm-roberta-base-finetuned-swahili", False),
        ("", False),
    ],
)
def test_encoders_are_known_by_their_exact_names(encoder: str, known: bool) -> None:
    assert (seen_by(encoder, "eng_Latn") is True) is known
    assert (seen_by(encoder, "umb_Latn") is None) is not known


def test_groups_by_script_family_and_encoder() -> None:
    codes = ["eng_Latn", "sin_Sinh", "yor_Latn", "hin_Deva", "swh_Latn", "prs_Arab", "si"]
    assert groups_for([*codes, "sin_Sinh"], E5) == [
        LanguageGroup("all", tuple(codes), "general"),
        LanguageGroup("all but English", tuple(codes[1:]), "general"),
        LanguageGroup("low-resource", ("sin_Sinh", "yor_Latn", "swh_Latn", "prs_Arab", "si"), "general"),
        LanguageGroup("script: Latin", ("yor_Latn", "swh_Latn"), "script"),
        LanguageGroup("script: Sinhala", ("sin_Sinh", "si"), "script"),
        LanguageGroup("script: Arabic", ("prs_Arab",), "script"),
        LanguageGroup("script: Devanagari", ("hin_Deva",), "script"),
        LanguageGroup("family: Indo-European", ("sin_Sinh", "hin_Deva", "prs_Arab", "si"), "family"),
        LanguageGroup("family: Atlantic-Congo", ("yor_Latn", "swh_Latn"), "family"),
        LanguageGroup("seen by the encoder", ("sin_Sinh", "hin_Deva", "swh_Latn", "si"), "encoder"),
        LanguageGroup("not seen by the encoder", ("yor_Latn",), "encoder"),
    ]


def test_empty_groups_are_left_out() -> None:
    assert [group.title for group in groups_for(["eng_Latn"], E5)] == ["all"]
    assert groups_for([], E5) == []
    assert [group.kind for group in groups_for(["xx"], "unknown/encoder")] == ["general", "general"]


def test_entries_of_the_lists_that_are_not_known_languages_are_few_and_named() -> None:
    unknown = {code for code in f"{CC100} {MC4}".split() if find_language(code) is None}
    assert unknown == {"br", "co", "fy", "haw", "hmn", "la"}
