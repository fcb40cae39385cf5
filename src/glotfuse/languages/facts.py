"""Script and family of a language, whether an encoder was pretrained on it, and groups of languages by these.

Families are those of Glottolog (Hammarström et al., https://glottolog.org), top level, except that creoles (by
Ethnologue's classification, https://www.ethnologue.com), isolates and constructed languages are said as such;
Glottolog files creoles under the language that gave most of their words. N'Ko, a written standard of Manding, is
counted as Mande. Other names in use: Niger-Congo joins Atlantic-Congo and Mande, Nilo-Saharan joins Nilotic and
Saharan, Kra-Dai is Tai-Kadai.

"Seen" means: in the list of pretraining languages that the encoder's authors published. How a list is read:

- A macrolanguage stands for its usual standard: Arabic for Modern Standard Arabic, Malay for Standard Malay,
  Kurdish for Northern Kurdish, Norwegian for Bokmål, Swahili for `swh`. If a list names another member of an
  ISO 639-3 macrolanguage but not this one (Egyptian Arabic, Dari, Central Kurdish, Cantonese), the answer is
  `None`: the text may have been in it. Malay is read more strictly, for lists name Indonesian apart: Minangkabau
  and Banjar are seen only where they are named.
- A language in another script than its usual one is seen if the list names it so (Hindi in Latin script in
  CC100); otherwise the answer is `None`.
- Training after pretraining does not count: the contrastive training of multilingual-e5 read pairs in further
  languages, of which no list is published.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from glotfuse.languages.names import GROUPS, find_language, is_english, known_languages

UNKNOWN_SCRIPT = "Zzzz"
"""The ISO 15924 code for a script that is not known."""

_SCRIPTS = """Arab Arabic; Armn Armenian; Beng Bengali; Cyrl Cyrillic; Deva Devanagari; Ethi Ethiopic; Geor Georgian;
    Grek Greek; Gujr Gujarati; Guru Gurmukhi; Hang Hangul; Hani Han; Hans Han (simplified); Hant Han (traditional);
    Hebr Hebrew; Jpan Japanese (kanji and kana); Khmr Khmer; Knda Kannada; Kore Korean (Hangul and Han); Laoo Lao;
    Latn Latin; Mlym Malayalam; Mong Mongolian; Mtei Meetei Mayek; Mymr Myanmar; Nkoo N'Ko; Olck Ol Chiki; Orya Odia;
    Sinh Sinhala; Syrc Syriac; Taml Tamil; Telu Telugu; Tfng Tifinagh; Thaa Thaana; Thai Thai; Tibt Tibetan"""

# Family, then ISO 639-3 codes; a line that is indented goes on with the one before.
_FAMILIES = """
Afro-Asiatic = acm acq aeb ajp amh apc arb ars ary arz gaz hau heb kab mlt som taq tir tzm
Atlantic-Congo = aka bem cjk ewe fon fuv ibo kam kbp kik kin kmb kon lin lua lug mos nso nya run sna sot ssw swh tsn
    tso tum twi umb wol xho yor zul
Austroasiatic = khm sat vie
Austronesian = ace ban bbc bjn bug ceb fij ilo ind jav mad min mri nij pag plt smo sun tgl war zsm
Aymaran = ayr
Constructed language = epo
Creole = hat kea pap pcm sag tpi
Dravidian = kan mal tam tel
Indo-European = afr als asm ast awa bel ben bho bos bul cat ces ckb cym dan deu ell eng fao fra fur gla gle glg guj
    hin hne hrv hye isl ita kas kmr lij lim lit lmo ltg ltz lvs mag mai mar mkd nld nno nob npi oci ory pan pbt pes
    pol por prs ron rus san scn sin slk slv snd spa srd srp swe szl tgk ukr urd vec ydd
Isolate = eus
Japonic = jpn
Kartvelian = kat
Koreanic = kor
Mande = bam dyu nqo
Mongolic-Khitan = khk
Nilotic = dik luo nus
Quechuan = quy
Saharan = knc
Sino-Tibetan = bod dzo kac lus mni mya yue zho
Tai-Kadai = lao shn tha
Tupian = grn
Turkic = azb azj bak crh kaz kir tat tuk tur uig uzn
Uralic = est fin hun
"""

# Lists of pretraining languages in ISO 639 codes; `zh` is Chinese in both scripts, as all of these sources have it.

# CC100 as XLM-R read it: Conneau et al. (2020), "Unsupervised Cross-lingual Representation Learning at Scale"
# (https://arxiv.org/abs/1911.02116), Table 6: 100 rows, Burmese and Chinese twice. The CC-100 that was published
# later has more languages, such as Yoruba and Zulu, which XLM-R did not read.
CC100 = """af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id
    is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si sk sl
    so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh bn-Latn hi-Latn ta-Latn te-Latn ur-Latn"""

# mC4: Xue et al. (2021), "mT5" (https://arxiv.org/abs/2010.11934), Table 6: 101 languages and six of them in Latin
# script; umT5 (Chung et al. 2023, https://arxiv.org/abs/2304.09151) names the same 107 for its newer crawl.
MC4 = """af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw he hi hmn ht hu
    hy id ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny pa pl ps pt ro ru
    sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr uk ur uz vi xh yi yo zh zu
    bg-Latn el-Latn hi-Latn ja-Latn ru-Latn zh-Latn"""

# Multilingual BERT: "List of Languages" in multilingual.md of https://github.com/google-research/bert: the 102 of the
# uncased model (Chinese twice), to which the cased one adds Mongolian and Thai.
WIKIPEDIA_102 = """af an ar ast az azb ba bar be bg bn bpy br bs ca ce ceb cs cv cy da de el en es et eu fa fi fr fy
    ga gl gu he hi hr ht hu hy id io is it ja jv ka kk kn ko ky la lb lmo lt lv mg min mk ml mr ms my nb nds ne new nl
    nn oc pa pl pms pnb pt ro ru scn sco sh sk sl sq sr su sv sw ta te tg tl tr tt uk ur uz vi vo war yo zh"""
WIKIPEDIA_104 = f"{WIKIPEDIA_102} mn th"

# NLLB-200 (Costa-jussà et al. 2022, https://arxiv.org/abs/2207.04672): the 202 language codes of its tokenizer. They
# are those of Flores-200 without Romanised Arabic and Minangkabau in Arabic script.
_NOT_IN_NLLB = "arb_Latn bbc_Latn mad_Latn min_Arab nij_Latn nqo_Nkoo pcm_Latn"

# Sources for the encoders that follow another's list: XLM-R XL and XXL, Goyal et al. (2021,
# https://arxiv.org/abs/2105.00572); multilingual MiniLM, distilled from XLM-R on its corpora, Wang et al. (2020,
# https://arxiv.org/abs/2002.10957); multilingual-e5, which starts from XLM-R and this MiniLM and names its 100
# languages, Wang et al. (2024, https://arxiv.org/abs/2402.05672); multilingual DistilBERT, its model card.
_ENCODERS: tuple[tuple[str, str], ...] = (
    (r"bundled:e5-small", "cc100"),
    (r"((facebookai|facebook)/)?xlm-roberta-(base|large|xl|xxl)", "cc100"),
    (r"(intfloat/)?multilingual-e5-(small|base|large|large-instruct)", "cc100"),
    (r"(microsoft/)?multilingual-minilm-l12-h384", "cc100"),
    (r"((google-bert|distilbert)/)?(distil)?bert-base-multilingual-cased", "wikipedia_104"),
    (r"(google-bert/)?bert-base-multilingual-uncased", "wikipedia_102"),
    (r"(google/)?u?mt5-(small|base|large|xl|xxl)", "mc4"),
    (r"(facebook/)?nllb-(200-(distilled-)?[0-9.]+[mb]|moe-54b)", "nllb"),
)

# Members of ISO 639-3 macrolanguages that known languages share; a list that names one may hold text in the others.
_MACROLANGUAGES = tuple(
    frozenset(members.split())
    for members in (
        "acm acq aeb ajp apc arb ars ary arz",
        "aka twi",
        "azb azj",
        "bos hrv srp",
        "ckb kmr",
        "ltg lvs",
        "nno nob",
        "pes prs",
        "yue zho",
    )
)


@dataclass(frozen=True)
class LanguageGroup:
    """Languages that results are averaged over.

    Attributes:
        title: What to call the group, such as "low-resource" or "family: Dravidian".
        codes: Its languages, as the codes were given and in their order; never empty.
        kind: `general`, `script`, `family` or `encoder`.
    """

    title: str
    codes: tuple[str, ...]
    kind: str


def script_of(code: str) -> str:
    """Returns the ISO 15924 code of the script a language is written in: `Sinh` for `sin_Sinh`, `si` or `Sinhala`.

    A script that the code names is taken as it is, even for an unknown language; without one it is the usual
    script of the language, and `Zzzz` if that is unknown.
    """
    language = find_language(code)
    if language:
        return language.code[4:]
    named = re.fullmatch(r"[a-z]{2,3}[_-]([a-z]{4})([_-].*)?", code.strip(), re.IGNORECASE)
    return named[1].capitalize() if named else UNKNOWN_SCRIPT


def script_name(code: str) -> str:
    """Returns the English name of a language's script, or its ISO 15924 code where no name is known."""
    script = script_of(code)
    return "unknown script" if script == UNKNOWN_SCRIPT else _script_names().get(script, script)


def family_of(code: str) -> str | None:
    """Returns the top-level family of a language, such as "Dravidian", "Creole" or "Isolate"; `None` if unknown."""
    language = find_language(code)
    return _families().get(language.code[:3]) if language else None


def seen_by(encoder_name: str, code: str) -> bool | None:
    """Whether the encoder's authors list the language among those it was pretrained on.

    Args:
        encoder_name: Hub id (`google/mt5-large`), bundled name (`bundled:e5-small`), or a folder with the name of the
            model (`/models/xlm-roberta-base`). A model of the same name from another owner is unknown.
        code: Any code or name that `find_language` takes.

    Returns:
        `None` for an unknown encoder or language, and where the list does not settle it; the module says when.
    """
    language, listed = find_language(code), _languages_of(_list_of(encoder_name))
    if language is None or not listed:
        return None
    if language.code in listed:
        return True
    known = {entry[:3] for entry in listed}
    relatives = next((group for group in _MACROLANGUAGES if language.code[:3] in group), frozenset({language.code[:3]}))
    return None if relatives & known else False


def groups_for(codes: Iterable[str], encoder_name: str) -> list[LanguageGroup]:
    """Sorts languages into groups for averages: all, all but English, low-resource, by script, by family, by encoder.

    English stands in the first group alone, for it is what the fusion is trained on. Languages of unknown family, and
    those of which it is not known whether the encoder saw them, are in no group of that kind. Groups without a
    language are left out.

    Args:
        codes: The languages, each once.
        encoder_name: As in `seen_by`.
    """
    codes = tuple(dict.fromkeys(codes))
    targets = [code for code in codes if not is_english(code)]
    groups = [LanguageGroup(title, tuple(filter(belongs, codes)), "general") for title, belongs in GROUPS.values()]
    groups += _by(targets, "script", lambda code: None if script_of(code) == UNKNOWN_SCRIPT else script_name(code))
    groups += _by(targets, "family", family_of)
    for seen, title in ((True, "seen by the encoder"), (False, "not seen by the encoder")):
        chosen = tuple(code for code in targets if seen_by(encoder_name, code) is seen)
        groups.append(LanguageGroup(title, chosen, "encoder"))
    return [group for group in groups if group.codes]


def _by(codes: Iterable[str], kind: str, value_of: Callable[[str], str | None]) -> list[LanguageGroup]:
    """Groups of one kind, largest first, then by name."""
    members: dict[str, list[str]] = {}
    for code in codes:
        value = value_of(code)
        if value is not None:
            members.setdefault(value, []).append(code)
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    return [LanguageGroup(f"{kind}: {value}", tuple(found), kind) for value, found in ordered]


@functools.cache
def _script_names() -> dict[str, str]:
    return {entry.split()[0]: " ".join(entry.split()[1:]) for entry in _SCRIPTS.split(";")}


@functools.cache
def _families() -> dict[str, str]:
    lines = _FAMILIES.replace("\n    ", " ").strip().splitlines()
    return {code: family for family, members in (line.split(" = ") for line in lines) for code in members.split()}


def _list_of(encoder_name: str) -> str | None:
    """Returns which list of languages an encoder was pretrained on, by its name."""
    name = encoder_name.strip().replace("\\", "/").rstrip("/").lower()
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or re.match(r"[a-z]:/", name):
        name = name.rsplit("/", 1)[-1]
    return next((source for pattern, source in _ENCODERS if re.fullmatch(pattern, name)), None)


@functools.cache
def _languages_of(source: str | None) -> frozenset[str]:
    """Returns the Flores-200 codes of a list, as far as they are known; none for no list."""
    if source is None:
        return frozenset()
    if source == "nllb":
        return frozenset(language.code for language in known_languages()) - set(_NOT_IN_NLLB.split())
    entries = {"cc100": CC100, "mc4": MC4, "wikipedia_102": WIKIPEDIA_102, "wikipedia_104": WIKIPEDIA_104}[source]
    found = [find_language(entry) for entry in [*entries.split(), "zh-Hant"]]
    return frozenset(language.code for language in found if language)
