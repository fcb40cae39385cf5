"""Answers that differ from text to text: their scores are the textbook's, and they share the encoder's pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from glotfuse.api import FusedLM
from glotfuse.errors import PromptError
from glotfuse.model.scoring import AnswerScore, score_answers
from textbook_lm import BRANCHING, textbook_logits
from tiny import LMS, TEXTS, tiny_model

ANSWERS = (
    ("science", "health news"),
    ("health", "health news today", " sports"),
    ("politics",),
    ("a", "b", "the team won"),
)


def answer_ids(model: FusedLM) -> list[list[list[int]]]:
    return [[model.prompt.answer_ids(answer) for answer in own] for own in ANSWERS]


def scored(model: FusedLM, answers: list[list[list[int]]]) -> list[list[AnswerScore]]:
    with model.answering():
        return score_answers(model, model.prepare(TEXTS[: len(answers)]), answers)


@torch.no_grad()
@pytest.mark.parametrize("lm", LMS)
def test_scores_are_the_textbooks_cached_or_not(lm: str) -> None:
    model = tiny_model(lm=lm)
    answers, examples = answer_ids(model), model.prepare(TEXTS[: len(ANSWERS)])
    expected = [
        [
            -float(F.cross_entropy(textbook_logits(model, example, ids), torch.tensor(ids), reduction="sum"))
            for ids in own
        ]
        for example, own in zip(examples, answers, strict=True)
    ]
    for cached in (True, False):
        model.cache_head = cached
        for found, own in zip(scored(model, answers), expected, strict=True):
            assert [score.log_probability for score in found] == pytest.approx(own, abs=1e-4)
    if lm in BRANCHING:
        assert model.branching, "the answers should be read as a tree"


@torch.no_grad()
@pytest.mark.parametrize("lm", ["llama", "bloom", "mamba"])
def test_an_answer_is_greedy_when_every_token_is_the_most_probable(lm: str) -> None:
    model = tiny_model(lm=lm)
    answers = []
    for example in model.prepare(TEXTS[:3]):
        greedy: list[int] = []
        for _ in range(4):
            greedy.append(int(textbook_logits(model, example, [*greedy, 0])[-1].argmax()))
        changed = [[token if i != j else (token + 1) % 50 for i, token in enumerate(greedy)] for j in range(4)]
        answers.append([greedy, greedy[:1], *changed])
    for found in scored(model, answers):
        assert [score.is_greedy for score in found] == [True, True, False, False, False, False]


def test_the_encoder_reads_a_text_once_for_all_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    rows = []
    real = model.encoder.model.forward
    monkeypatch.setattr(
        model.encoder.model, "forward", lambda *a, **k: rows.append(len(k["input_ids"])) or real(*a, **k)
    )
    scored(model, answer_ids(model))
    assert rows == [len(ANSWERS)]


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(PromptError, match="empty"):
        scored(tiny_model(), [[[1], []]])


@pytest.mark.parametrize("num_texts", [1, 2, 3])
def test_texts_that_the_tree_was_tried_on_are_not_read_again(num_texts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(lm="llama")
    answers = answer_ids(model)[:num_texts]
    passes: list[int] = []
    run = model.lm.run
    monkeypatch.setattr(model.lm, "run", lambda *a, **k: passes.append(1) or run(*a, **k))
    model.head_cache(model.prompt)
    passes.clear()
    first = scored(model, answers)
    tried = len(passes)
    assert model.branching
    assert scored(model, answers) == first  # the same to the last bit
    assert tried == 3 + (num_texts > 2)  # the prompt, the rest of longer answers, the tree; then the tree of all texts
    assert len(passes) == tried + 1
