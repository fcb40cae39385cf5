"""Encoder inputs: the text is cut, never the template, the other columns or a written character; nothing in silence."""

from __future__ import annotations

import functools
import random
import time
import unicodedata
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, collate, prepare
from glotfuse.inputs.prompts import Prompt, build_prompt
from glotfuse.inputs.reader import InputReader
from tiny_tokenizers import SENTENCES, byte_level_bpe, unigram

START, END = 1, 2
NLI = "Premise: {premise} Hypothesis: {hypothesis} Label:"
SINHALA = "ආර්ථිකය වර්ධනය වෙමින් පවතී ශ්‍රී ලංකාව ක්‍රීඩා "


class StubEncoder:
    """Stands in for `Encoder`: a real tokenizer between two special tokens, no model."""

    def __init__(self, kind: str = "unigram", max_length: int | None = 512):
        self.tokenizer = stub_tokenizer(kind)
        self.max_length = max_length
        self.identity = SimpleNamespace(name="stub-encoder")
        self.languages: set[str | None] = set()
        self.texts: list[str] = []

    def tokenize(self, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
        self.languages.add(language)
        self.texts.extend(texts)
        return [[START, *e.ids, END] for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def read_back(self, ids: list[int]) -> str:
        assert (ids[0], ids[-1]) == (START, END)
        return self.tokenizer.decode(ids[1:-1])


@functools.cache
def stub_tokenizer(kind: str) -> Any:
    specials = ["<unk>", "<s>", "</s>"]
    return unigram(specials, 400) if kind == "unigram" else byte_level_bpe(specials)


@functools.cache
def lm_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    base = byte_level_bpe(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>")


def prompt(**options: Any) -> Prompt:
    return build_prompt(lm_tokenizer(), style="plain", **options)


def reader(encoder: Any, **options: Any) -> InputReader:
    return InputReader(encoder, **options)


def long_text(num_chars: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    words: list[str] = []
    while sum(map(len, words)) < num_chars:
        words += draw.choice(SENTENCES[:8]).split()
    return " ".join(words)[:num_chars]


# Cutting


def test_texts_that_fit_are_read_as_they_are() -> None:
    encoder = StubEncoder()
    rows = [{"text": text} for text in SENTENCES[:3]]
    expected = encoder.tokenize([f"news: {text}" for text in SENTENCES[:3]])
    found = reader(encoder, template="news: {text}", max_length=max(map(len, expected))).read(rows)
    assert found == [(ids, False) for ids in expected]
    assert reader(encoder).read([]) == []


@pytest.mark.parametrize("kind", ["unigram", "bytes"])
def test_one_token_too_many_is_cut(kind: str) -> None:
    encoder = StubEncoder(kind)
    [whole] = encoder.tokenize([SENTENCES[2]])
    [(ids, cut)] = reader(encoder, max_length=len(whole) - 1).read([{"text": SENTENCES[2]}])
    assert cut
    assert len(ids) <= len(whole) - 1


@pytest.mark.parametrize("kind", ["unigram", "bytes"])
@pytest.mark.parametrize("max_length", [10, 256])
def test_a_text_of_100000_characters_is_cut_fast_and_as_late_as_possible(kind: str, max_length: int) -> None:
    encoder = StubEncoder(kind)
    text = long_text(100_000)
    start = time.perf_counter()
    [(ids, cut)] = reader(encoder, template="news: {text} !", max_length=max_length).read([{"text": text}])
    assert time.perf_counter() - start < 3
    assert cut
    assert len(encoder.texts) < 80
    fitting = [n for n in range(1, 1500) if len(encoder.tokenize([f"news: {text[:n]} !"])[0]) <= max_length]
    assert ids == encoder.tokenize([f"news: {text[: fitting[-1]]} !"])[0]
    assert len(ids) <= max_length


def test_a_longer_beginning_with_fewer_tokens_is_found() -> None:
    """One token for the whole word, one per letter for its beginnings."""

    class WordEncoder(StubEncoder):
        def tokenize(self, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
            pieces = [[p for w in text.split() for p in ([w] if w == "internationally" else w)] for text in texts]
            return [[START, *(9 for _ in p), END] for p in pieces]

    for max_length, expected in ((2 + 7, 7), (2 + 1, 1)):
        [(ids, cut)] = reader(WordEncoder(), max_length=max_length).read([{"text": "internationally " * 50}])
        assert (len(ids), cut) == (2 + expected, True)


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(st.sampled_from("ab ආර්ථිකයශ්‍රී\u200c\u0301éक्ष{}👩‍🚀"), min_size=1, max_size=60),
    max_length=st.integers(12, 60),
    kind=st.sampled_from(["unigram", "bytes"]),
)
def test_result_never_exceeds_the_limit_and_keeps_what_is_around_the_text(
    text: str, max_length: int, kind: str
) -> None:
    encoder = StubEncoder(kind)
    cutting = reader(encoder, template="a: {text} b", max_length=max_length)
    [(ids, cut)] = cutting.read([{"text": text}])
    whole = encoder.tokenize([f"a: {text} b"])[0]
    assert len(ids) <= max_length
    assert (ids[0], ids[-1]) == (START, END)
    assert cut == (len(whole) > max_length)
    if not cut:
        assert ids == whole
    else:
        assert any(ids == encoder.tokenize([f"a: {text[:n]} b"])[0] for n in range(1, len(text)))


@pytest.mark.parametrize("cut_column", ["premise", "hypothesis"])
def test_template_other_column_and_special_tokens_survive_a_cut(cut_column: str) -> None:
    encoder = StubEncoder("bytes")
    row = {"premise": "The team won.", "hypothesis": "A {new} planet."}
    row[cut_column] = long_text(5_000)
    [(ids, cut)] = reader(encoder, template=NLI, cut_column=cut_column, max_length=64).read([row])
    text = encoder.read_back(ids)
    before, after = NLI.format_map({**row, cut_column: "\0"}).split("\0")
    assert cut
    assert len(ids) <= 64
    assert text.startswith(before)
    assert text.endswith(after)
    assert row[cut_column].startswith(text[len(before) : len(text) - len(after)])


def test_cuts_are_counted_one_by_one() -> None:
    rows = [{"text": long_text(n)} for n in (5, 5_000, 20, 9_000)]
    prepared = prepare(reader(StubEncoder(), max_length=40), prompt(), rows)
    assert [p.truncated for p in prepared] == [False, True, False, True]


@pytest.mark.parametrize("kind", ["unigram", "bytes"])
@pytest.mark.parametrize(
    "text",
    [
        SINHALA * 30,  # vowel signs, virama and joiner
        "é" * 5 + unicodedata.normalize("NFD", "é à ü ") * 50,
        "می‌خواهم " * 50,  # zero-width non-joiner
        "ខ្មែរ កម្ពុជា " * 40,  # stacked consonants
        "क्षेत्र " * 50,
        "a👩‍🚀" * 60,
    ],
)
def test_no_written_character_is_split(kind: str, text: str) -> None:
    for max_length in range(20, 40):
        encoder = StubEncoder(kind)
        [(_, cut)] = reader(encoder, max_length=max_length).read([{"text": text}])
        chosen = encoder.texts[-1]  # the beginning that was chosen is tokenized last
        end = len(chosen)
        assert cut
        assert text.startswith(chosen)
        assert not unicodedata.category(text[end]).startswith("M")
        assert not {text[end - 1], text[end]} & {"\u200c", "\u200d"}
        assert unicodedata.combining(text[end - 1]) != 9  # a virama that stacks the next consonant


def test_a_written_character_longer_than_the_room_is_split_rather_than_refused() -> None:
    encoder = StubEncoder("bytes")
    [(ids, cut)] = reader(encoder, max_length=20).read([{"text": "a" + "\u0301" * 1_000}])
    assert cut
    assert 18 <= len(ids) <= 20


@pytest.mark.parametrize("max_length", [2, 5, 8])
def test_too_little_room_for_any_text_is_an_error(max_length: int) -> None:
    cutting = reader(StubEncoder("bytes"), template="Premise: {text} Label:", max_length=max_length)
    with pytest.raises(PromptError, match=r"room for 'text' within max_length \d; the template alone take \d+ tokens"):
        cutting.read([{"text": "The team won."}])


def test_the_error_names_the_other_columns() -> None:
    cutting = reader(StubEncoder("bytes"), template=NLI, cut_column="premise", max_length=60)
    with pytest.raises(PromptError, match=r"room for 'premise'.*the template and hypothesis alone take .*Raise max_l"):
        cutting.read([{"premise": "The team won.", "hypothesis": long_text(2_000)}])


# Fields


def test_one_text_or_a_mapping_of_columns() -> None:
    encoder = StubEncoder()
    assert reader(encoder, template="news: {text}").fields("The team won.") == {"text": "The team won."}
    assert reader(encoder, template="{text} / {text}").fields("a") == {"text": "a"}
    row = {"premise": "a", "hypothesis": "b", "id": "7"}
    assert reader(encoder, template=NLI, cut_column="premise").fields(row) == row


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"premise": "a"}, "Expected the column 'hypothesis'; found premise"),
        ({}, "Expected the column 'premise'; found none"),
        ({"premise": "a", "hypothesis": " \n"}, "text in the column 'hypothesis'; found it empty"),
        ({"premise": "a", "hypothesis": None}, "text in the column 'hypothesis'; found None"),
        ("one text", "Expected the columns premise, hypothesis for each input; found one text: 'one text'"),
        (["a", "b"], "Expected a text, or a mapping of columns to texts; found list"),
    ],
)
def test_missing_and_empty_columns_are_refused(value: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        reader(StubEncoder(), template=NLI, cut_column="premise").fields(value)


@pytest.mark.parametrize("text", ["", "  ", "\n\t\u00a0"])
def test_empty_texts_are_refused(text: str) -> None:
    with pytest.raises(PromptError, match="text in the column 'text'; found it empty"):
        reader(StubEncoder()).fields(text)


@pytest.mark.parametrize("text", ["{", "}", "{text}", "{0}", "{x.y[2]!r:>9}", "{{}}"])
def test_braces_in_a_text_are_text(text: str) -> None:
    encoder = StubEncoder("bytes")
    row = reader(encoder).fields(text)
    [(ids, cut)] = reader(encoder, template="a {{b}} {text}", max_length=60).read([row])
    assert (encoder.read_back(ids), cut) == (f"a {{b}} {text}", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut_column": "txt"}, "column to shorten, 'txt', in the template '{text}'; found text"),
        ({"template": "no field"}, "found no columns"),
        ({"template": "{text"}, r"template with \{column\} fields; found '{text'"),
        ({"template": "{text} {}"}, r"Expected plain \{column\} fields in the template"),
        ({"template": "{text!r}"}, r"Expected plain \{column\} fields"),
        ({"template": "{text:>9}"}, r"Expected plain \{column\} fields"),
        ({"template": "{text.x} {text}"}, r"Expected plain \{column\} fields"),
        ({"max_length": 513}, "max_length of at most 512, which stub-encoder can take; found 513"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        reader(StubEncoder(), **options)


def test_an_encoder_without_limit_takes_any_length() -> None:
    assert reader(StubEncoder(max_length=None), max_length=10_000).max_length == 10_000


def test_the_language_reaches_the_tokenizer_for_whole_and_cut_texts() -> None:
    encoder = StubEncoder()
    rows = [{"text": "The team won."}, {"text": long_text(2_000)}]
    prepare(reader(encoder, max_length=30), prompt(), rows, language="sin_Sinh")
    assert encoder.languages == {"sin_Sinh"}


# Examples and batches


def test_answers_end_and_are_only_made_for_training() -> None:
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    asked = prompt(tail="Label: ")
    answers = ["sports", "science", "sports"]
    prepared = prepare(reader(StubEncoder()), asked, rows, answers=answers)
    assert [p.answer_ids for p in prepared] == [[*asked.answer_ids(a), *asked.end_ids] for a in answers]
    assert [p.answer_ids for p in prepare(reader(StubEncoder()), asked, rows)] == [[], [], []]


def test_span_plus_text_gives_the_lm_the_same_text() -> None:
    rows = [{"text": "The team won {x}."}]
    [example] = prepare(reader(StubEncoder(), template="news: {text}"), prompt(include_text=True), rows)
    assert lm_tokenizer().decode(example.text_ids) == "\nnews: The team won {x}."
    assert not example.truncated
    [without] = prepare(reader(StubEncoder()), prompt(), rows)
    assert without.text_ids == []


def test_plain_text_is_cut_like_the_encoders_without_losing_the_hypothesis() -> None:
    rows = [{"premise": long_text(3_000), "hypothesis": "The team won."}]
    options = {"template": NLI, "cut_column": "premise", "max_length": 512}
    cutting = reader(StubEncoder(max_length=None), **{**options, "max_length": 5_000}, max_text_tokens=50)
    [example] = prepare(cutting, prompt(include_text=True), rows)
    text = lm_tokenizer().decode(example.text_ids)
    assert text.startswith("\nPremise: ")
    assert text.endswith(" Hypothesis: The team won. Label:")
    assert 49 <= len(example.text_ids) <= 50
    assert example.truncated
    with pytest.raises(PromptError, match=r"within max_text_tokens 9; .*Raise max_text_tokens"):
        prepare(reader(StubEncoder(), **options, max_text_tokens=9), prompt(include_text=True), rows)


def test_collate_pads_at_the_right_and_masks() -> None:
    examples = [
        PreparedExample([5, 6, 7], [1, 2], [8, 9]),
        PreparedExample([0], [], [3]),
    ]
    batch = collate(examples, pad_token_id=0, answers=True)
    assert batch.encoder_ids.tolist() == [[5, 6, 7], [0, 0, 0]]
    assert batch.encoder_mask.tolist() == [[True] * 3, [True, False, False]]  # a real token may equal the padding
    assert batch.text_ids.tolist() == [[1, 2], [-100, -100]]
    assert batch.answer_ids.tolist() == [[8, 9], [3, -100]]
    assert {x.dtype for x in (batch.encoder_ids, batch.text_ids, batch.answer_ids)} == {torch.int64}
    assert batch.encoder_mask.dtype == torch.bool


def test_collate_leaves_answers_out_unless_asked_for() -> None:
    batch = collate([PreparedExample([5], [], [8, 9]), PreparedExample([6])], pad_token_id=3)
    assert batch.answer_ids.shape == batch.text_ids.shape == (2, 0)
