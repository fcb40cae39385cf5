"""Code-switching: translations out of an encoder's vocabulary, and views of English texts."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import Unigram, WordLevel
from tokenizers.normalizers import Prepend
from tokenizers.pre_tokenizers import Metaspace, Whitespace
from transformers import PreTrainedTokenizerFast

from glotfuse.backbones.pooling import Pooling
from glotfuse.errors import ConfigError
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.reader import InputReader
from glotfuse.training import lexicon as lexicon_module
from glotfuse.training.code_switching import SwitchedExamples, Switcher, ViewSettings, english_words, switch_row
from glotfuse.training.lexicon import (
    Lexicon,
    build_lexicon,
    embed_words,
    read_lexicon,
    read_vocabulary,
    script_of,
    vocabulary_words,
)
from tiny import tiny_encoder

_MEANINGS, _WIDTH = 260, 24


def _word(number: int, letters: str) -> str:
    return "".join(letters[number // len(letters) ** place % len(letters)] for place in range(5))


ENGLISH = [_word(n, "abcdefg") for n in range(_MEANINGS)]
RUSSIAN = [_word(n, "бвгдежз") for n in range(_MEANINGS)]
HINDI = [_word(n, "कखगघचछज") for n in range(_MEANINGS)]


class FakeEncoder:
    """One layer; a word's state is its meaning, far moved by its script. The number of forward passes is counted."""

    num_layers, hidden_size, prefix, dtype = 1, _WIDTH, "query: ", torch.float32
    device, max_length, src_lang, byte_fallback = torch.device("cpu"), None, None, False
    embedding_size, pooling, num_prefix_tokens = _WIDTH, Pooling(), 0

    def __init__(self) -> None:
        words = [*ENGLISH, *RUSSIAN, *HINDI, "ab", "хх", "a1bcd", "[UNK]", "[PAD]"]
        raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        raw.pre_tokenizer = Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
        self.pad_token_id = words.index("[PAD]")
        self.identity: Any = SimpleNamespace(name="fake", sha256="0" * 64)
        generator = torch.Generator().manual_seed(0)
        meanings = torch.randn(_MEANINGS, _WIDTH, generator=generator)
        noise = 0.2 * torch.randn(3, _MEANINGS, _WIDTH, generator=generator)
        offsets = 5 * torch.randn(3, 1, _WIDTH, generator=generator)
        states = (meanings + noise + offsets).reshape(-1, _WIDTH)
        self.states = torch.cat([states, torch.zeros(len(words) - len(states), _WIDTH)])
        self.passes = 0

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None, layers: list[int]) -> tuple[torch.Tensor, ...]:
        self.passes += 1
        assert layers == [0]
        assert mask is None or bool(mask.all())  # words of one length, without padding
        return (self.states[ids],)

    def use_language(self, language: str | None) -> None:
        """It needs none."""

    def tokenize(self, texts: list[str], language: str | None = None) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts)["input_ids"]
        return ids


@pytest.fixture
def encoder() -> Any:
    return FakeEncoder()


def _read(encoder: Any, folder: Path) -> Any:
    return read_vocabulary(encoder, folder, lambda total: lambda number: None)


def test_words_of_the_vocabulary_are_whole_and_of_letters(encoder: Any) -> None:
    words, scripts = vocabulary_words(encoder)
    assert set(words) == {*ENGLISH, *RUSSIAN, *HINDI}
    assert dict(zip(words, scripts, strict=True))[HINDI[3]] == script_of(HINDI[3]) == "DEVANAGARI"


@pytest.mark.parametrize("scheme", ["always", "never", "always and a space"])
def test_pieces_of_words_are_no_words(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not a text begins with the mark of a space; where words are written without spaces they need none."""
    monkeypatch.setattr(lexicon_module, "_MIN_WORDS", 1)
    whole = ["▁government", "▁वाटर", "政府", "รัฐบาล", "▁ประเทศ", "ລັດຖະບານ"]
    pieces = ["vernment", "▁go", "टर", "ัฐบา", "ระ", "▁", "政", "<unk>"]
    scores = [(piece, -1.0 - 2 * (piece in pieces)) for piece in [*whole, *pieces]]
    raw = Tokenizer(Unigram(scores, unk_id=len(scores) - 1))
    raw.pre_tokenizer = Metaspace(prepend_scheme="always" if scheme == "always" else "never", split=False)
    raw.decoder = MetaspaceDecoder(prepend_scheme="never" if scheme == "never" else "always")
    if scheme == "always and a space":
        raw.normalizer = Prepend("▁")
    encoder: Any = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>"))
    assert set(vocabulary_words(encoder)[0]) == {piece.removeprefix("▁") for piece in whole}


def test_translations_have_the_same_meaning_however_far_apart_the_scripts_are(encoder: Any, tmp_path: Path) -> None:
    lexicon = build_lexicon(encoder, _read(encoder, tmp_path), ENGLISH[:100])
    for script, words in (("CYRILLIC", RUSSIAN), ("DEVANAGARI", HINDI)):
        table = lexicon.translations[script]
        right = sum(table.get(ENGLISH[n], ("",))[0] == words[n] for n in range(100))
        assert right >= 95, f"{script}: {right} of 100"
    assert lexicon.coverage > 0.95
    assert lexicon.weights["CYRILLIC"] == pytest.approx(_MEANINGS**0.5)


def test_english_words_do_not_translate_english_words(encoder: Any, tmp_path: Path) -> None:
    lexicon = build_lexicon(encoder, _read(encoder, tmp_path), ENGLISH)
    assert "LATIN" not in lexicon.translations


def test_the_vocabulary_is_encoded_once(encoder: Any, tmp_path: Path) -> None:
    first = _read(encoder, tmp_path)
    passes = encoder.passes
    again = _read(encoder, tmp_path)
    assert encoder.passes == passes > 0
    assert torch.equal(first.embeddings, again.embeddings)
    (stored,) = tmp_path.glob("*.safetensors")
    stored.write_bytes(b"torn")
    assert torch.equal(_read(encoder, tmp_path).embeddings, first.embeddings)
    encoder.byte_fallback = True  # with which words may have other ids
    assert _read(encoder, tmp_path).key != first.key


def test_a_lexicon_is_made_once(encoder: Any, tmp_path: Path) -> None:
    vocabulary = _read(encoder, tmp_path)
    first = read_lexicon(encoder, vocabulary, ENGLISH[:50], tmp_path)
    passes = encoder.passes
    assert read_lexicon(encoder, vocabulary, ENGLISH[:50], tmp_path) == first
    assert encoder.passes == passes
    assert read_lexicon(encoder, vocabulary, ENGLISH[:40], tmp_path) != first
    for stored in tmp_path.glob("*.json"):
        stored.write_text("{torn", "utf8")
    assert read_lexicon(encoder, vocabulary, ENGLISH[:50], tmp_path) == first


@pytest.mark.parametrize(
    ("family", "found"),
    [
        ("xlm-r", r"a XLMRobertaModel, with a Unigram vocabulary of \d+ tokens, .*'mean'"),
        ("bert", r"\d+ of LATIN.* a BertModel, with a byte-level BPE vocabulary of 460 tokens, .*'mean'"),
        ("mmbert", r"a ModernBertModel, with a BPE vocabulary of \d+ tokens"),
        ("embedding-gemma", r"a Gemma3TextModel, with a BPE vocabulary of \d+ tokens"),
        ("mt5", r"a MT5EncoderModel|a MT5Stack, with a Unigram"),
        ("qwen3-embedding", r"a Qwen3Model, which reads from left to right, with a byte-level BPE .*'lasttoken'"),
    ],
)
def test_an_encoder_without_words_is_refused_by_what_it_has(family: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"multilingual vocabulary.*at least 200 whole words.*{found}") as caught:
        _read(tiny_encoder(family), tmp_path)
    assert "Set augmentation.code_switching to 0 to train without views" in str(caught.value)


def test_word_embeddings_are_the_mean_of_the_last_layer() -> None:
    encoder = tiny_encoder("xlm-r", prefix="query: ", pooling=Pooling(include_prompt=False))  # words have no prefix
    found = embed_words(encoder, ["water", "a", "rivers and"])
    for row, word in zip(found, ["water", "a", "rivers and"], strict=True):
        ids = torch.tensor([encoder.tokenizer(word)["input_ids"]])
        torch.testing.assert_close(row, encoder(ids, None)[-1][0].float().mean(0))


def test_words_are_pooled_as_the_encoder_is_and_kept_apart_from_those_of_another_pooling(
    encoder: Any, tmp_path: Path
) -> None:
    for family, place in (("bge-m3", 0), ("qwen3-embedding", -1)):
        own = tiny_encoder(family)
        ids = torch.tensor([own.tokenizer(" water")["input_ids"]])
        torch.testing.assert_close(embed_words(own, ["water"])[0], own(ids, None)[-1][0, place])
    first, again = _read(encoder, tmp_path).key, _read(encoder, tmp_path).key
    encoder.pooling = Pooling.named("cls")
    assert _read(encoder, tmp_path).key != first == again


LEXICON = Lexicon({"CYRILLIC": {"water": ("вода",), "city": ("город",)}}, {"CYRILLIC": 1.0}, 1.0)


def test_switched_words_keep_everything_else_in_place() -> None:
    row = {"text": "Water, (the city's) WATER?", "other": "water"}
    view = switch_row(row, ["text"], LEXICON, 1.0, random.Random(0))
    assert view == {"text": "вода, (the город's) вода?", "other": "water"}
    assert row["text"].startswith("Water")


def test_the_share_of_switched_words_is_the_one_asked_for() -> None:
    row = {"text": "water " * 4000}
    view = switch_row(row, ["text"], LEXICON, 0.3, random.Random(0))["text"].split()
    assert view.count("вода") / len(view) == pytest.approx(0.3, abs=0.03)


def test_some_rows_are_read_in_views() -> None:
    encoder = tiny_encoder("xlm-r")
    reader = InputReader(encoder, template="{text}", max_length=100)
    fields = [{"text": "water " * 9}] * 400
    plain = [PreparedExample(ids) for ids, _ in reader.read(fields)]

    def switched(seed: int) -> list[int]:
        switcher = Switcher(LEXICON, ["text"], settings=ViewSettings(), seed=seed)
        found = SwitchedExamples(plain, fields, reader, lambda *key: switcher.view(*key, views=0.5))
        return [9 - encoder.tokenizer.decode(example.encoder_ids).count("water") for example in found]

    found = switched(0)
    assert switched(0) == found != switched(1)
    # half of the rows are as they were; of the others every share is as frequent, so none has about a tenth of them
    assert found.count(0) / 400 == pytest.approx(0.5 + 0.5 * 0.1, abs=0.07)
    assert sum(found) / 400 == pytest.approx(0.5 * 9 / 2, abs=0.5)
    assert found.count(9) / 400 == pytest.approx(0.5 * 0.1, abs=0.04)


def test_a_view_that_has_to_be_cut_is_left_out_where_the_whole_text_is_wanted() -> None:
    reader = InputReader(tiny_encoder("xlm-r"), template="{text}", max_length=100)
    fields = [{"text": "water " * 9}]
    plain = [PreparedExample(ids) for ids, _ in reader.read(fields)]
    for whole in (False, True):
        found = SwitchedExamples(plain, fields, reader, lambda *_: {"text": "water " * 200}, whole=whole)[0]
        assert found.truncated is not whole
        assert (found == plain[0]) is whole


def test_english_words_are_found_once() -> None:
    assert english_words(["The city, the CITY of x9 ab", "Rivers"]) == ["ab", "city", "of", "rivers"]
