"""Promises of glotfuse.languages.names."""

import pytest

from glotfuse.languages.names import (
    GROUPS,
    find_language,
    is_english,
    is_low_resource,
    known_languages,
    name_of,
    resource_class_of,
)

# The 204 codes of the table in the README of Flores-200 (facebookresearch/flores).
FLORES_200 = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab arb_Latn
ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn
bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn
ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn
epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn
gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn
ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab
kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn
kmr_Latn kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn
lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl plt_Latn
mlt_Latn mni_Beng khk_Cyrl mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pes_Arab pol_Latn por_Latn prs_Arab pbt_Arab
quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn
smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn
swh_Latn szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn
tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn
vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""


def test_every_flores_200_language_has_a_name_and_no_two_share_one() -> None:
    codes = FLORES_200.split()
    names = [name_of(code) for code in codes]
    assert len(codes) == 204
    assert not set(names) & set(codes)
    assert len(set(names)) == 204


def test_codes_of_the_table_are_unique_and_found_as_themselves() -> None:
    codes = [language.code for language in known_languages()]
    assert len(set(codes)) == len(codes)
    for language in known_languages():
        assert find_language(language.code) == language
        assert find_language(language.name) == language


@pytest.mark.parametrize(
    ("resource_class", "codes"),
    [  # the examples that Table 1 of Joshi et al. (2020) gives, as far as Flores-200 has them
        (1, "fij_Latn bho_Deva"),
        (2, "zul_Latn lao_Laoo mlt_Latn gle_Latn"),
        (3, "ind_Latn ukr_Cyrl ceb_Latn afr_Latn heb_Hebr"),
        (4, "rus_Cyrl hun_Latn vie_Latn nld_Latn kor_Hang"),
        (5, "eng_Latn spa_Latn deu_Latn jpn_Jpan fra_Latn"),
    ],
)
def test_resource_classes_are_those_of_the_paper(resource_class: int, codes: str) -> None:
    assert [resource_class_of(code) for code in codes.split()] == [resource_class] * len(codes.split())


def test_class_sizes_fit_the_papers_counts() -> None:
    # The paper counts 7 languages in class 5, 18 in 4, 28 in 3 and 19 in 2; Flores-200 lacks Latin (3),
    # Konkani and Western Punjabi (2). Scripts of one language count once here.
    sizes = {
        number: len({x.code[:3] for x in known_languages() if x.resource_class == number}) for number in (2, 3, 4, 5)
    }
    assert sizes == {5: 7, 4: 18, 3: 28 - 1, 2: 19 - 2}


def test_classes_0_to_2_and_only_they_are_low_resource() -> None:
    for language in known_languages():
        assert is_low_resource(language.code) == (language.resource_class in (0, 1, 2))
    assert is_low_resource("sin_Sinh")
    assert is_low_resource("sw")
    assert not is_low_resource("tam_Taml")


def test_a_language_without_a_class_is_not_counted_as_low_resource() -> None:
    assert resource_class_of("luo_Latn") is None
    assert not is_low_resource("luo_Latn")
    assert not is_low_resource("no such language")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en", "eng_Latn"),
        ("english", "eng_Latn"),
        ("sw", "swh_Latn"),
        ("swa", "swh_Latn"),
        ("indonesian", "ind_Latn"),
        ("javanese", "jav_Latn"),
        ("sundanese", "sun_Latn"),
        ("si", "sin_Sinh"),
        ("ur", "urd_Arab"),
        ("zh", "zho_Hans"),
        ("zh-TW", "zho_Hant"),
        ("pt-BR", "por_Latn"),
        ("es-419", "spa_Latn"),
        ("ENG-latn", "eng_Latn"),
        ("Scottish Gaelic", "gla_Latn"),
        ("toba_batak", "bbc_Latn"),
        ("ace", "ace_Latn"),
        ("fil_Latn", "tgl_Latn"),
    ],
)
def test_other_spellings_of_a_code_are_accepted(code: str, expected: str) -> None:
    language = find_language(code)
    assert language is not None
    assert language.code[:3] == expected[:3]
    assert resource_class_of(code) == resource_class_of(expected)


@pytest.mark.parametrize("code", ["eng_Latn", "en", "EN", "en-GB", "en_US", "eng", "English"])
def test_english_is_recognised_in_every_spelling(code: str) -> None:
    assert is_english(code)


@pytest.mark.parametrize("code", ["enm", "engx", "en_foo", "pcm_Latn", "deu_Latn", ""])
def test_nothing_else_is_english(code: str) -> None:
    assert not is_english(code)


@pytest.mark.parametrize("code", ["xx", "qaa_Latn", "my own language", ""])
def test_the_name_of_an_unknown_language_is_its_code(code: str) -> None:
    assert name_of(code) == code


def test_a_known_language_in_another_script_keeps_its_class_and_shows_the_script() -> None:
    assert name_of("sin_Latn") == "Sinhala (Latn)"
    assert is_low_resource("sin_Latn")


def test_groups_choose_their_languages() -> None:
    codes = ["en", "sin_Sinh", "rus_Cyrl", "luo_Latn"]
    chosen = {group: [code for code in codes if belongs(code)] for group, (_, belongs) in GROUPS.items()}
    assert chosen == {"all": codes, "all_but_english": codes[1:], "low_resource": ["sin_Sinh"]}
