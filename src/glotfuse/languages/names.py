"""Names and resource classes of languages, keyed by Flores-200 code (ISO 639-3 + script, `sin_Sinh`).

Covers Flores-200 and SIB-200, and the languages of MasakhaNEWS and NusaX that these lack.

The low-resource criterion is the resource class of Joshi et al. (2020), "The State and Fate of Linguistic
Diversity and Inclusion in the NLP World" (ACL 2020, https://aclanthology.org/2020.acl-main.560): from 0,
"the left-behinds", to 5, "the winners". **Classes 0, 1 and 2 count as low-resource.** How their list of
language names (`lang2tax.txt`) is read:

- a class belongs to a language, whatever script it is written in;
- of two entries for one language under different names the higher class is taken (Sinhala 0, Sinhalese 1:
  class 1);
- a language that the list does not name has no class (`None`) and does **not** count as low-resource, however
  few resources it has: an average over low-resource languages never rests on a guess.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

MAX_LOW_RESOURCE_CLASS = 2
"""Highest class of Joshi et al. (2020) that counts as low-resource."""


@dataclass(frozen=True)
class Language:
    """A language in one script.

    Attributes:
        code: Flores-200 code, such as `sin_Sinh`.
        name: English name.
        resource_class: 0 to 5 after Joshi et al. (2020); `None` where their list does not name the language.
    """

    code: str
    name: str
    resource_class: int | None

    @property
    def low_resource(self) -> bool:
        """Whether the resource class is known and at most 2."""
        return self.resource_class is not None and self.resource_class <= MAX_LOW_RESOURCE_CLASS


# Where a language has several scripts, the first is what the bare code or name ("ace", "Chinese") stands for.
_BY_CLASS: dict[int | None, str] = {
    0: """awa_Deva Awadhi; ban_Latn Balinese; dyu_Latn Dyula; fon_Latn Fon; lus_Latn Mizo; mag_Deva Magahi;
        mni_Beng Meitei (Bengali script); mos_Latn Mossi; nqo_Nkoo N'Ko; nus_Latn Nuer;
        pcm_Latn Nigerian Pidgin; prs_Arab Dari; shn_Mymr Shan; taq_Latn Tamasheq (Latin script);
        taq_Tfng Tamasheq (Tifinagh script); umb_Latn Umbundu""",
    1: """ace_Latn Acehnese (Latin script); ace_Arab Acehnese (Arabic script); aka_Latn Akan;
        als_Latn Tosk Albanian; asm_Beng Assamese; ast_Latn Asturian; ayr_Latn Central Aymara;
        azb_Arab South Azerbaijani; azj_Latn North Azerbaijani; bak_Cyrl Bashkir; bam_Latn Bambara;
        bho_Deva Bhojpuri; bjn_Latn Banjar (Latin script); bjn_Arab Banjar (Arabic script);
        bod_Tibt Standard Tibetan; bug_Latn Buginese; ckb_Arab Central Kurdish; crh_Latn Crimean Tatar;
        cym_Latn Welsh; dik_Latn Southwestern Dinka; dzo_Tibt Dzongkha; epo_Latn Esperanto; ewe_Latn Ewe;
        fao_Latn Faroese; fij_Latn Fijian; fur_Latn Friulian; fuv_Latn Nigerian Fulfulde;
        gaz_Latn West Central Oromo; gla_Latn Scottish Gaelic; grn_Latn Guarani; guj_Gujr Gujarati;
        hye_Armn Armenian; ibo_Latn Igbo; ilo_Latn Ilocano; jav_Latn Javanese; kab_Latn Kabyle;
        kan_Knda Kannada; kas_Arab Kashmiri (Arabic script); kas_Deva Kashmiri (Devanagari script);
        kbp_Latn Kabiyè; khk_Cyrl Halh Mongolian; khm_Khmr Khmer; kik_Latn Kikuyu; kin_Latn Kinyarwanda;
        kir_Cyrl Kyrgyz; kmr_Latn Northern Kurdish; kon_Latn Kikongo; lij_Latn Ligurian;
        lim_Latn Limburgish; lin_Latn Lingala; lmo_Latn Lombard; ltg_Latn Latgalian; ltz_Latn Luxembourgish;
        lug_Latn Ganda; mai_Deva Maithili; mal_Mlym Malayalam; min_Latn Minangkabau (Latin script);
        min_Arab Minangkabau (Arabic script); mkd_Cyrl Macedonian; mri_Latn Maori; mya_Mymr Burmese;
        nno_Latn Norwegian Nynorsk; nob_Latn Norwegian Bokmål; npi_Deva Nepali; nso_Latn Northern Sotho;
        nya_Latn Nyanja; oci_Latn Occitan; ory_Orya Odia; pag_Latn Pangasinan; pap_Latn Papiamento;
        pbt_Arab Southern Pashto; plt_Latn Plateau Malagasy; quy_Latn Ayacucho Quechua; run_Latn Rundi;
        sag_Latn Sango; sat_Olck Santali; scn_Latn Sicilian; sin_Sinh Sinhala; smo_Latn Samoan;
        sna_Latn Shona; snd_Arab Sindhi; som_Latn Somali; sot_Latn Southern Sotho; srd_Latn Sardinian;
        ssw_Latn Swati; sun_Latn Sundanese; szl_Latn Silesian; tat_Cyrl Tatar; tel_Telu Telugu;
        tgk_Cyrl Tajik; tpi_Latn Tok Pisin; tso_Latn Tsonga; tuk_Latn Turkmen; tum_Latn Tumbuka;
        twi_Latn Twi; uig_Arab Uyghur; vec_Latn Venetian; war_Latn Waray; ydd_Hebr Eastern Yiddish;
        yue_Hant Yue Chinese""",
    2: """amh_Ethi Amharic; gle_Latn Irish; hat_Latn Haitian Creole; hau_Latn Hausa; isl_Latn Icelandic;
        lao_Laoo Lao; mar_Deva Marathi; mlt_Latn Maltese; pan_Guru Eastern Panjabi; san_Deva Sanskrit;
        swh_Latn Swahili; tir_Ethi Tigrinya; tsn_Latn Tswana; wol_Latn Wolof; xho_Latn Xhosa;
        yor_Latn Yoruba; zul_Latn Zulu""",
    3: """afr_Latn Afrikaans; arz_Arab Egyptian Arabic; bel_Cyrl Belarusian; ben_Beng Bengali;
        bos_Latn Bosnian; bul_Cyrl Bulgarian; ceb_Latn Cebuano; dan_Latn Danish; ell_Grek Greek;
        est_Latn Estonian; glg_Latn Galician; heb_Hebr Hebrew; ind_Latn Indonesian; kat_Geor Georgian;
        kaz_Cyrl Kazakh; lit_Latn Lithuanian; lvs_Latn Standard Latvian; ron_Latn Romanian; slk_Latn Slovak;
        slv_Latn Slovenian; tam_Taml Tamil; tgl_Latn Tagalog; tha_Thai Thai; ukr_Cyrl Ukrainian;
        urd_Arab Urdu; uzn_Latn Northern Uzbek; zsm_Latn Standard Malay""",
    4: """cat_Latn Catalan; ces_Latn Czech; eus_Latn Basque; fin_Latn Finnish; hin_Deva Hindi;
        hrv_Latn Croatian; hun_Latn Hungarian; ita_Latn Italian; kor_Hang Korean; nld_Latn Dutch;
        pes_Arab Western Persian; pol_Latn Polish; por_Latn Portuguese; rus_Cyrl Russian; srp_Cyrl Serbian;
        swe_Latn Swedish; tur_Latn Turkish; vie_Latn Vietnamese""",
    5: """arb_Arab Modern Standard Arabic; arb_Latn Modern Standard Arabic (Romanized); deu_Latn German;
        eng_Latn English; fra_Latn French; jpn_Jpan Japanese; spa_Latn Spanish;
        zho_Hans Chinese (Simplified); zho_Hant Chinese (Traditional)""",
    None: """acm_Arab Mesopotamian Arabic; acq_Arab Ta'izzi-Adeni Arabic; aeb_Arab Tunisian Arabic;
        ajp_Arab South Levantine Arabic; apc_Arab North Levantine Arabic; ars_Arab Najdi Arabic;
        ary_Arab Moroccan Arabic; bbc_Latn Toba Batak; bem_Latn Bemba; cjk_Latn Chokwe;
        hne_Deva Chhattisgarhi; kac_Latn Jingpho; kam_Latn Kamba; kea_Latn Kabuverdianu; kmb_Latn Kimbundu;
        knc_Latn Central Kanuri (Latin script); knc_Arab Central Kanuri (Arabic script);
        lua_Latn Luba-Kasai; luo_Latn Luo; mad_Latn Madurese; nij_Latn Ngaju;
        tzm_Tfng Central Atlas Tamazight""",
}

# Left: ISO 639-1, macrolanguage and successor codes, and names that data sets use (spaces as "_").
_ALIASES = """
    af=afr ak=aka am=amh ar=arb as=asm ay=ayr az=azj ba=bak be=bel bg=bul bm=bam bn=ben bo=bod bs=bos ca=cat
    cs=ces cy=cym da=dan de=deu dz=dzo ee=ewe el=ell en=eng eo=epo es=spa et=est eu=eus fa=pes ff=fuv fi=fin
    fj=fij fo=fao fr=fra ga=gle gd=gla gl=glg gn=grn gu=guj ha=hau he=heb hi=hin hr=hrv ht=hat hu=hun hy=hye
    id=ind ig=ibo is=isl it=ita ja=jpn jv=jav ka=kat kg=kon ki=kik kk=kaz km=khm kn=kan ko=kor kr=knc ks=kas
    ku=kmr ky=kir lb=ltz lg=lug li=lim ln=lin lo=lao lt=lit lv=lvs mg=plt mi=mri mk=mkd ml=mal mn=khk mr=mar
    ms=zsm mt=mlt my=mya nb=nob ne=npi nl=nld nn=nno no=nob ny=nya oc=oci om=gaz or=ory pa=pan pl=pol ps=pbt
    pt=por qu=quy rn=run ro=ron ru=rus rw=kin sa=san sc=srd sd=snd sg=sag si=sin sk=slk sl=slv sm=smo sn=sna
    so=som sq=als sr=srp ss=ssw st=sot su=sun sv=swe sw=swh ta=tam te=tel tg=tgk th=tha ti=tir tk=tuk tl=tgl
    tn=tsn tr=tur ts=tso tt=tat tw=twi ug=uig uk=ukr ur=urd uz=uzn vi=vie wo=wol xh=xho yi=ydd yo=yor zh=zho
    zu=zul
    ara=arb aym=ayr aze=azj cmn=zho din=dik ekk=est fas=pes fil=tgl ful=fuv gug=grn kau=knc kur=kmr lav=lvs
    mlg=plt mon=khk msa=zsm nep=npi nor=nob ori=ory orm=gaz pus=pbt que=quy sqi=als swa=swh tmh=taq uzb=uzn
    yid=ydd zlm=zsm
    cmn_hans=zho_hans cmn_hant=zho_hant sat_beng=sat_olck zh_cn=zho_hans zh_hk=zho_hant zh_tw=zho_hant
    albanian=als arabic=arb aymara=ayr azerbaijani=azj banjarese=bjn cantonese=yue chichewa=nya dinka=dik
    farsi=pes filipino=tgl fula=fuv fulfulde=fuv haitian=hat kanuri=knc kirundi=run kurdish=kmr latvian=lvs
    luganda=lug malagasy=plt malay=zsm mandarin=zho manipuri=mni mongolian=khk norwegian=nob oriya=ory
    oromo=gaz panjabi=pan pashto=pbt persian=pes pidgin=pcm punjabi=pan quechua=quy sesotho=sot
    sinhalese=sin sorani=ckb tibetan=bod uzbek=uzn yiddish=ydd
"""


_LOCALE = re.compile(r"(?P<language>[a-z]{2,3})(_(?P<script>[a-z]{4}))?(_([a-z]{2}|[0-9]{3}))?")
"""A normalised locale: language, optional script, optional region."""


@functools.cache
def known_languages() -> tuple[Language, ...]:
    """Returns every language of the table, sorted by code."""
    return tuple(sorted(_table(), key=lambda language: language.code))


def _table() -> Iterator[Language]:
    for resource_class, entries in _BY_CLASS.items():
        for entry in entries.split(";"):
            code, name = entry.split(maxsplit=1)
            yield Language(code, " ".join(name.split()), resource_class)


@functools.cache
def _index() -> dict[str, Language]:
    """Maps each normalised code, name and alias to its language."""
    index: dict[str, Language] = {}
    for language in _table():
        bare_name = language.name.split(" (")[0]
        for key in (language.code, language.code[:3], language.name, bare_name):
            index.setdefault(_normalise(key), language)
    for alias, target in (pair.split("=") for pair in _ALIASES.split()):
        index.setdefault(alias, index[target])
    return index


def _normalise(code: str) -> str:
    return code.strip().lower().replace("-", "_").replace(" ", "_")


def find_language(code: str) -> Language | None:
    """Finds a language by Flores-200 code, ISO 639-1 or 639-3 code, locale or English name, in any case.

    A region is ignored (`en-US`). A known language in a script that the table does not have (`hin_Latn`)
    keeps its class and is named with the script: "Hindi (Latn)".

    Args:
        code: For example `swh_Latn`, `sw`, `swa`, `sw-KE` or `Swahili`.

    Returns:
        The language, or `None` if it is unknown.
    """
    key = _normalise(code)
    if key in _index():
        return _index()[key]
    parts = _LOCALE.fullmatch(key)
    language = _index().get(parts["language"]) if parts else None
    if parts is None or language is None or not parts["script"]:
        return language
    script = parts["script"].capitalize()
    code = f"{language.code[:3]}_{script}"
    named_with_script = replace(language, code=code, name=f"{language.name.split(' (')[0]} ({script})")
    return _index().get(_normalise(code), named_with_script)


def name_of(code: str) -> str:
    """Returns the English name of a language, or the code itself if the language is unknown."""
    language = find_language(code)
    return language.name if language else code


def resource_class_of(code: str) -> int | None:
    """Returns the class of Joshi et al. (2020), 0 to 5, or `None` for a language without one."""
    language = find_language(code)
    return language.resource_class if language else None


def is_low_resource(code: str) -> bool:
    """Whether the language is of class 0, 1 or 2 after Joshi et al. (2020); without a class it is not."""
    language = find_language(code)
    return language is not None and language.low_resource


def is_english(code: str) -> bool:
    """Whether the code stands for English, in any of its spellings (`eng_Latn`, `en`, `en-GB`, `english`)."""
    language = find_language(code)
    return language is not None and language.code.startswith("eng_")


GROUPS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "all": ("all", lambda code: True),
    "all_but_english": ("all but English", lambda code: not is_english(code)),
    "low_resource": ("low-resource", is_low_resource),
}
"""The groups of languages that results are averaged over: what to call each, and its test of a code."""


TWO_LETTER_CODES: dict[str, str] = dict(
    pair.split(":")
    for pair in (  # noqa: SIM905 - a list of two hundred strings is no easier to read
        "afr:af amh:am arb:ar ara:ar asm:as ast:ast azj:az aze:az bak:ba bel:be ben:bn bos:bs bul:bg cat:ca ceb:ceb "
        "ces:cs cym:cy dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fas:fa pes:fa fin:fi fra:fr fuv:ff ful:ff "
        "fry:fy gla:gd gle:ga glg:gl guj:gu hat:ht hau:ha heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ilo:ilo ind:id "
        "isl:is ita:it jav:jv jpn:ja kan:kn kat:ka kaz:kk khm:km kir:ky kor:ko ckb:ku kmr:ku lao:lo lvs:lv lav:lv "
        "lin:ln lit:lt ltz:lb lug:lg mal:ml mar:mr mkd:mk mlg:mg plt:mg mon:mn khk:mn mya:my npi:ne nep:ne nld:nl "
        "nob:no nno:nn nso:ns nya:ny oci:oc ory:or pan:pa pbt:ps pus:ps pol:pl por:pt ron:ro rus:ru sin:si slk:sk "
        "slv:sl sna:sn snd:sd som:so sot:st spa:es als:sq sqi:sq srp:sr ssw:ss sun:su swe:sv swh:sw swa:sw tam:ta "
        "tel:te tgk:tg tgl:tl tha:th tir:ti tsn:tn tur:tr uig:ug ukr:uk urd:ur uzn:uz uzb:uz vie:vi wol:wo xho:xh "
        "ydd:yi yid:yi yor:yo zho:zh zsm:ms msa:ms zul:zu"
    ).split()
)
"""Three-letter code to the code that M2M100 and mBART use."""
