"""The tokenizer of converted files: pieces, special tokens, and normalisation as the original's."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceNormalizer

from e5_writer import CHARSMAP, PIECES, POSITIONS
from glotfuse.backbones.bundled.e5_tokenizer import build_normalizer


def plain_normalise(text: str, charsmap: dict[int, str]) -> str:
    """What the C source does (code point by code point, runs of spaces become one), with composition."""
    mapped = unicodedata.normalize("NFC", "".join(charsmap.get(ord(c), c) for c in text))
    while "  " in mapped:
        mapped = mapped.replace("  ", " ")
    return mapped


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ab", "▁ab"),  # -3.5 beats ▁a + b at -5 and ▁ + ab at -6.5
        ("ba  ab", "▁ b a ▁ab"),
        ("a ", "▁a ▁"),
        ("ක\u200dක", "▁ ක ▁ ක"),
        ("a\xada", "▁a a"),
        ("ﬁ", "▁ fi"),
        ("azzb", "▁a <unk> b"),  # neighbouring unknown characters are one unknown piece, as in SentencePiece
    ],
)
def test_text_becomes_the_most_likely_pieces(e5_folder: Path, text: str, tokens: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(e5_folder)
    ids = [next(i for i, (piece, _) in enumerate(PIECES) if piece == token) for token in tokens.split()]
    assert tokenizer(text)["input_ids"] == [0, *ids, 2]


def test_the_tokenizer_is_xlm_roberta_s_in_special_tokens_and_pairs(e5_folder: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(e5_folder)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == POSITIONS
    assert tokenizer("a", "a") == {"input_ids": [0, 7, 2, 2, 7, 2], "attention_mask": [1] * 6}
    specials = (tokenizer.bos_token, tokenizer.cls_token, tokenizer.eos_token, tokenizer.sep_token)
    assert specials == ("<s>", "<s>", "</s>", "</s>")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (1, 3, 12)
    assert tokenizer("a <mask>")["input_ids"] == [0, 7, 12, 2]  # the mask takes the space before it
    assert tokenizer.decode([0, 9, 7, 2], skip_special_tokens=True) == "ab a"
    padded = tokenizer(["a", "a a"], padding=True)
    assert padded["input_ids"] == [[0, 7, 2, 1], [0, 7, 7, 2]]


NORMALIZER = build_normalizer(CHARSMAP)


@given(
    st.lists(
        st.sampled_from(
            [*map(chr, CHARSMAP), *"ab ක\u0dca\u0301\u0323\u200c\u0e33\ufe0f\r\n\U0001f468é\u1112\u1161\u11ab"]
        ),
        max_size=12,
    )
)
def test_normalisation_is_per_code_point_whatever_the_grapheme(characters: list[str]):
    text = "".join(characters)
    assert NORMALIZER.normalize_str(text) == plain_normalise(text, CHARSMAP)


@pytest.mark.parametrize(("rule", "result"), [({0x200D: " "}, "ක් ෂ"), ({0x200D: ""}, "ක්ෂ"), ({}, "ක්\u200dෂ")])
def test_a_zero_width_joiner_is_treated_as_the_map_says(rule: dict[int, str], result: str):
    assert build_normalizer({0xA0: " ", **rule}).normalize_str("ක්\u200dෂ") == result


@pytest.mark.parametrize(
    ("decomposed", "composed"),
    [
        ("O\u0323\u0300na\u0300", "\u1ecc\u0300n\xe0"),  # Yoruba: no single code point for the first letter
        ("O\u0300\u0323na\u0300", "\u1ecc\u0300n\xe0"),  # marks in the other order
        ("Vie\u0323\u0302t", "Vi\u1ec7t"),
        ("\u0995\u09c7\u09be", "\u0995\u09cb"),  # Bengali, two halves of a vowel sign
        ("\u1112\u1161\u11ab", "\ud55c"),  # Hangul
        ("\u0915\u093c", "\u0915\u093c"),  # Hindi nukta: excluded from composition
        ("\u0958", "\u0915\u093c"),
        ("\u0dc1\u0dca\u0dbb\u0dd3", "\u0dc1\u0dca\u0dbb\u0dd3"),  # Sinhala has nothing to compose here
    ],
)
def test_decomposed_text_is_composed(decomposed: str, composed: str):
    assert NORMALIZER.normalize_str(decomposed) == composed
    assert NORMALIZER.normalize_str(composed) == composed


ORIGINAL = SentencePieceNormalizer(
    rule_name="nmt_nfkc", add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False
)
"""The normaliser that XLM-R was trained with, as SentencePiece carries it."""

TEXTS = [
    "Ọ̀nà tí ó tọ́ ni èyí, ẹ jọ̀wọ́ ẹ máa bọ̀",
    "Tiếng Việt được viết bằng chữ Quốc ngữ",
    "কৌশল ও ঢাকার বড় মেলোডি, হয়েছে",
    "फ़िल्म ज़रूर क़लम बड़ा पढ़ना ऩऱऴ",
    "ਖ਼ਾਲਸਾ ਗ਼ਜ਼ਲ",
    "한국어는 값있는 언어",
    "கொடுப்போம் கௌரவம்",
    "ශ්රී ලංකාවේ කෝපි කෞතුකාගාරය",
    "ぱーてぃー ガギグゲゴ ｶﾞ Ａ１ ﬁne ½ ① … №",
    "Ёлка йод, ўзбек, ї",
    "آب أؤئ ۂ ۓ",
    "Ǻ ǭ ṩ Ḝ ǟ ȭ ᾦ ΰ",
]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_in_either_form_is_normalised_as_the_original_does(text: str, form: Literal["NFC", "NFD"]):
    text = unicodedata.normalize(form, text)
    alphabet = set(text) | set(unicodedata.normalize("NFC", text)) | set(unicodedata.normalize("NFD", text))
    alone = {ord(c): ORIGINAL.normalize(c) for c in alphabet}  # single code points, like the file's map
    charsmap = {cp: mapped for cp, mapped in alone.items() if mapped != chr(cp)} | {0xA0: " "}
    assert build_normalizer(charsmap).normalize_str(text) == ORIGINAL.normalize(text)
