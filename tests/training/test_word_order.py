"""Other word orders keep the words; smaller tokens keep the text."""

from __future__ import annotations

import random

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from glotfuse.training.resegmentation import Splitter
from glotfuse.training.word_order import reordered, thinned
from tiny import tiny_encoder

WORDS = [
    "A",
    "house",
    "in",
    "the",
    "north",
    "of",
    "Japan",
    "was",
    "sold,",
    "because",
    "the",
    "owner",
    "moved",
    "to",
    "Lagos.",
]


def test_reordering_keeps_every_word() -> None:
    seen = {tuple(reordered(WORDS, random.Random(seed))) for seed in range(60)}
    assert len(seen) > 20
    assert all(sorted(order) == sorted(WORDS) for order in seen)


def test_phrases_are_turned_round_within_their_clause() -> None:
    orders = {" ".join(reordered(WORDS, random.Random(seed))) for seed in range(60)}
    turned = "Japan was sold, of the north in A house Lagos. to the owner moved because"
    assert turned in orders


def test_shuffling_moves_no_word_far() -> None:
    numbers = [str(n) for n in range(30)]  # no word opens a phrase, so turning changes nothing
    for seed in range(40):
        for place, word in enumerate(reordered(numbers, random.Random(seed))):
            assert abs(place - int(word)) <= 4


def test_articles_go_and_something_stays() -> None:
    kept = [thinned(WORDS, random.Random(seed)) for seed in range(200)]
    articles = sum(word.lower() in ("a", "the") for words in kept for word in words)
    others = sum(len(words) for words in kept) - articles
    assert 0.3 < articles / (200 * 3) < 0.5
    assert 0.93 < others / (200 * 12) < 0.99
    assert thinned(["the"], random.Random(0)) == ["the"]


def test_split_tokens_spell_the_same_text() -> None:
    encoder = tiny_encoder("xlm-r")
    splitter = Splitter(encoder.tokenizer)
    (ids,) = encoder.tokenize(["The economy is growing and the team sang."])
    smaller = splitter(ids, 1.0, random.Random(1))
    assert len(smaller) > len(ids)
    assert encoder.tokenizer.decode(smaller) == encoder.tokenizer.decode(ids)
    assert smaller[0] == ids[0]
    assert smaller[-1] == ids[-1]
    assert splitter(ids, 0.0, random.Random(1)) == ids


def test_a_prefix_stays_whole() -> None:
    encoder = tiny_encoder("xlm-r", prefix="query: ")
    (ids,) = encoder.tokenize(["growing economy"])
    number = 1 + len(encoder.tokenizer("query: ", add_special_tokens=False)["input_ids"])
    splitter = Splitter(encoder.tokenizer, "query: ")
    assert splitter(ids, 1.0, random.Random(0))[:number] == ids[:number]


def test_a_tokenizer_without_marks_splits_nothing() -> None:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "growing": 3, "gro": 4, "wing": 5, "##wing": 6}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordPiece(vocabulary, unk_token="[UNK]")))
    assert Splitter(tokenizer)([1, 3, 2], 1.0, random.Random(0)) == [1, 3, 2]
