"""Characters that a vocabulary lacks are read as their bytes, as SentencePiece reads them, and nothing else changes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from glotfuse.backbones import BackboneOptions, Encoder, load_encoder
from glotfuse.backbones.byte_fallback import BYTE_PIECES, reads_bytes, restore_byte_fallback
from glotfuse.training.resegmentation import Splitter
from tiny import ENCODERS, SENTENCES, byte_encoder_folder, tiny_encoder

ODIA = ("ଆମେ ଖେଳ ଜିତିଲୁ।", "ବ୍ୟାଙ୍କ ସୁଧ ବଢ଼ାଇଲା।")
"""`We won the game`, `The bank raised interest`: no letter is in the tiny vocabulary."""


def byte_encoder(byte_fallback: bool = True) -> Encoder:
    return load_encoder(byte_encoder_folder(), BackboneOptions(device="cpu"), byte_fallback=byte_fallback)


def test_sentences_of_unknown_characters_have_ids_of_their_own_only_with_it() -> None:
    with_it, without = byte_encoder(), byte_encoder(byte_fallback=False)
    first, second = without.tokenize(ODIA)
    assert first == second
    assert without.tokenizer.unk_token_id in first
    first, second = with_it.tokenize(ODIA)
    assert first != second
    assert with_it.tokenizer.unk_token_id not in first + second
    assert (with_it.byte_fallback, without.byte_fallback) == (True, False)
    assert reads_bytes(with_it.tokenizer)
    assert not reads_bytes(without.tokenizer)


def test_the_ids_are_those_of_the_utf8_bytes() -> None:
    encoder = byte_encoder()
    [ids] = encoder.tokenize(["ଆମେ"])
    names = encoder.tokenizer.convert_ids_to_tokens(ids)
    assert names == ["▁", *(f"<0x{byte:02X}>" for byte in "ଆମେ".encode()), "</s>"]


def test_texts_of_known_characters_keep_their_ids() -> None:
    with_it, without = byte_encoder(), byte_encoder(byte_fallback=False)
    assert with_it.tokenize(SENTENCES) == without.tokenize(SENTENCES)
    assert not any(with_it.tokenizer.unk_token_id in ids for ids in with_it.tokenize(SENTENCES))


def test_ids_are_those_of_sentencepiece_with_byte_fallback(tmp_path: Path) -> None:
    import sentencepiece
    from transformers import T5Tokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([s for s in SENTENCES if s.isascii()] * 3),
        model_prefix=str(tmp_path / "small"),
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model"))
    pieces = [(original.id_to_piece(i), original.get_score(i)) for i in range(len(original))]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    texts = [*SENTENCES, *ODIA, "The ଖେଳ is growing", "naïve café", "🏏 match"]
    expected = [[*original.encode(text), 1] for text in texts]
    assert tokenizer(texts)["input_ids"] != expected
    assert restore_byte_fallback(tokenizer)
    assert tokenizer(texts)["input_ids"] == expected


def test_all_else_of_the_tokenizer_is_kept() -> None:
    tokenizer = byte_encoder(byte_fallback=False).tokenizer
    tokenizer.add_tokens(["brandnew"])
    before, vocabulary = json.loads(tokenizer.backend_tokenizer.to_str()), tokenizer.get_vocab()
    assert restore_byte_fallback(tokenizer)
    after = json.loads(tokenizer.backend_tokenizer.to_str())
    assert before["model"].pop("byte_fallback") is False
    assert after["model"].pop("byte_fallback") is True
    assert after == before
    assert tokenizer.get_vocab() == vocabulary
    assert tokenizer("a brandnew day", add_special_tokens=False)["input_ids"].count(vocabulary["brandnew"]) == 1


def bpe(num_bytes: int = 256, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *BYTE_PIECES[:num_bytes], "▁", "a", "b", "ab"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token="<unk>", fuse_unk=True, **options))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_a_bpe_vocabulary_with_bytes_reads_them_too() -> None:
    tokenizer = bpe()
    assert tokenizer.tokenize("ab ඌ") == ["▁", "ab", "▁", "<unk>"]
    assert restore_byte_fallback(tokenizer)
    assert tokenizer.tokenize("ab ඌ") == ["▁", "ab", "▁", "<0xE0>", "<0xB6>", "<0x8C>"]


@pytest.mark.parametrize(
    "make", [lambda: bpe(num_bytes=255), lambda: bpe(byte_fallback=True)], ids=["a byte is missing", "done already"]
)
def test_tokenizers_without_all_bytes_or_that_fall_back_already_are_left_alone(make: Any) -> None:
    tokenizer = make()
    before = tokenizer.backend_tokenizer.to_str()
    assert not restore_byte_fallback(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert reads_bytes(tokenizer) == ("<0xFF>" in tokenizer.get_vocab())


@pytest.mark.parametrize("family", ENCODERS)
def test_other_families_are_left_alone(family: str) -> None:
    tokenizer = tiny_encoder(family, byte_fallback=False).tokenizer
    assert not restore_byte_fallback(tokenizer)
    assert reads_bytes(tokenizer) == ("<0xFF>" in tokenizer.get_vocab()), "only those that do by themselves"
    assert not tiny_encoder(family).byte_fallback


def test_names_of_bytes_in_a_text_are_text() -> None:
    encoder = byte_encoder()
    [ids] = encoder.tokenize(["a <0x41> </s> b"])
    assert encoder.tokenizer.convert_tokens_to_ids("<0x41>") not in ids
    assert ids.count(encoder.tokenizer.eos_token_id) == 1


def test_bytes_are_not_split_into_the_letters_of_their_names() -> None:
    tokenizer = byte_encoder().tokenizer
    tokenizer.add_tokens(["<0", "xE0>"])
    ids = tokenizer("ଆମେ")["input_ids"]
    assert Splitter(tokenizer)(ids, 1.0, random.Random(0)) == ids
