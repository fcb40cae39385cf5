"""Unlabelled text: cut at a random point, nothing lost between the parts, no false ends."""

from __future__ import annotations

from typing import Any

import pytest

from glotfuse.errors import DataError
from glotfuse.training.objectives import prepare_continuations
from tiny import tiny_model

TEXTS = [f"The team won match number {i} in the last minute of the game, and {i} fans sang." for i in range(20)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def prepared(model: Any, texts: list[str] = TEXTS, **options: Any) -> Any:
    values = {"cut": (4, 9), "max_answer_tokens": 500, "seed": 1, **options}
    return prepare_continuations(model.reader, model.prompt, texts, **values)


def decoded(model: Any, ids: list[int]) -> str:
    return str(model.lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def test_first_part_and_continuation_make_the_document(model: Any) -> None:
    first = prepared(model)
    assert len(first.examples) == len(TEXTS)
    for text, example in zip(TEXTS, first.examples, strict=True):
        rest = decoded(model, example.answer_ids)
        assert text.endswith(rest.strip())
        head = text[: len(text) - len(rest.strip())]
        assert (
            example.encoder_ids == model.encoder.tokenize([head])[0]
            or example.encoder_ids == model.encoder.tokenize([head.rstrip()])[0]
        )
        assert example.answer_ids[-len(model.prompt.end_ids) :] == list(model.prompt.end_ids)


def test_cuts_are_random_within_bounds_and_repeatable(model: Any) -> None:
    def cuts(seed: int) -> list[int]:
        whole = [len(model.lm.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS]
        found = prepared(model, seed=seed).examples
        ends = len(model.prompt.end_ids)
        return [n - (len(e.answer_ids) - ends) for n, e in zip(whole, found, strict=True)]

    first = cuts(1)
    assert len(set(first)) > 2
    assert all(3 <= cut <= 10 for cut in first)
    assert first == cuts(1)
    assert first != cuts(2)


def test_a_cut_continuation_has_no_end(model: Any) -> None:
    for example in prepared(model, max_answer_tokens=5).examples:
        assert len(example.answer_ids) == 5
        assert example.answer_ids[-1] not in model.prompt.end_ids


def test_short_documents_are_counted(model: Any) -> None:
    assert prepared(model, [*TEXTS, "Hi."]).num_left_out == 1


def test_only_short_documents_are_an_error(model: Any) -> None:
    with pytest.raises(DataError, match=r"more than 4 LM tokens.*training\.cut"):
        prepared(model, ["Hi."])
