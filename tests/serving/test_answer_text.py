"""Streamed text has whole characters, ends at stop texts, and adds up to the decoded answer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from glotfuse.serving.answer_text import AnswerText


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte, which splits every character that is not ASCII."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("text", ["ක්‍රීඩකයා තරගය ජයගත්තේය", "an 👩‍🌾 and ñ", "line\nline", "اردو متن", "中文"])
def test_no_piece_has_half_a_character(bytewise: PreTrainedTokenizerFast, text: str) -> None:
    answer = AnswerText(bytewise)
    pieces = [answer.add_tokens([i]) for i in bytewise(text)["input_ids"]] + [answer.finish()]
    assert len(pieces) == len(text.encode()) + 1
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text


def test_bytes_that_never_become_a_character_are_shown_at_the_end(bytewise: PreTrainedTokenizerFast) -> None:
    answer = AnswerText(bytewise)
    ids = bytewise("a👩")["input_ids"][:-1]
    assert answer.add_tokens(ids) == "a"
    assert answer.finish() == bytewise.decode(ids)[1:]


def test_white_space_around_the_answer_is_not_given_out() -> None:
    answer = AnswerText(None)
    assert [answer.add_text(part) for part in (" ", " a", " ", "b", "\n")] == ["", "a", "", " b", ""]
    assert answer.finish() == ""


def test_what_may_become_a_stop_text_is_held_back() -> None:
    answer = AnswerText(None, ["END", "\n\n"])
    assert [answer.add_text(part) for part in ("a", "E", "N", "x", "E", "ND", "b")] == ["a", "", "", "ENx", "", "", ""]
    assert answer.stopped
    assert answer.finish() == ""


def test_the_beginning_of_a_stop_text_is_given_out_when_the_answer_ends() -> None:
    answer = AnswerText(None, ["END"])
    assert answer.add_text("aEN") == "a"
    assert answer.finish() == "EN"
    assert not answer.stopped
