"""What a vLLM server is asked for a tree of label words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx")

from glotfuse.serving.vllm.scoring import MOST_TOKEN_IDS, ScorePlan

WORDS = st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=4), min_size=1, max_size=200, unique_by=tuple)


def value(prefix: tuple[int, ...], token: int) -> float:
    """A log-probability of its own for every token after every prefix."""
    return -float(hash((prefix, token)) % 1000)


@given(WORDS, st.booleans())
def test_the_questions_cover_every_token_of_every_word(words: list[list[int]], single: bool) -> None:
    plan = ScorePlan.of(words, single=single)
    found = {}
    for question in plan.questions:
        assert len(question.token_ids) <= (1 if single else MOST_TOKEN_IDS)
        assert len(question.places) <= (1 if single else 16)
        for place in question.places:
            for token in question.token_ids:
                found[place, token] = value(plan.prefixes[place], token)
    expected = [sum(value(tuple(word[:i]), token) for i, token in enumerate(word)) for word in words]
    assert plan.scores(found) == expected


def test_words_of_one_token_take_one_prompt_and_words_that_begin_alike_share() -> None:
    plan = ScorePlan.of([[5], [7], [9]])
    assert plan.prefixes == ((),)
    assert [(q.places, q.token_ids) for q in plan.questions] == [((0,), (5, 7, 9))]
    plan = ScorePlan.of([[5, 6, 1], [5, 6, 2], [8]])
    assert plan.prefixes == ((), (5,), (5, 6))
    assert len(plan.questions) == 1
