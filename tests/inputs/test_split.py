"""A batch in parts within a token budget."""

from __future__ import annotations

import pytest
import torch

from glotfuse.api import FusedLM
from glotfuse.inputs.batch import prepare, split_rows, training_inputs
from glotfuse.inputs.order import groups_within
from glotfuse.inputs.padding import IGNORED
from tiny import TEXTS, tiny_model, with_labels

ANSWERS = ("science", "health news", "entertainment geography travel", "sports")


def inputs_of(model: FusedLM) -> dict[str, torch.Tensor]:
    examples = prepare(model.reader, model.prompt, [{"text": text} for text in TEXTS], answers=ANSWERS)
    return training_inputs(examples, model.encoder.pad_token_id)


@pytest.mark.parametrize("include_text", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_parts_have_the_batches_gradient(max_tokens: int, include_text: bool) -> None:
    model = with_labels(tiny_model(), ("science", "sports"), style="plain", include_text=include_text)
    inputs = inputs_of(model)
    model(**inputs)["loss"].backward()
    expected = [p.grad.clone() for p in model.fusion.parameters()]
    model.zero_grad()
    parts = split_rows(inputs, max_tokens)
    assert len(parts) == {1: len(TEXTS), 10_000: 1}.get(max_tokens, len(parts))
    assert sum(len(part["labels"]) for part in parts) == len(TEXTS)
    count = (inputs["labels"] != IGNORED).sum()
    for part in parts:
        tokens = part["encoder_ids"].numel() + part["text_ids"].numel()
        assert len(part["labels"]) == 1 or tokens <= 2 * max_tokens, "both kinds of token are padded apart"
        model(**part, num_items_in_batch=count)["loss"].backward()
    for found, gradient in zip(model.fusion.parameters(), expected, strict=True):
        torch.testing.assert_close(found.grad, gradient, atol=1e-5, rtol=1e-3)


def test_groups_hold_examples_of_similar_length_within_the_budget() -> None:
    lengths = [3, 9, 4, 8, 2, 30]
    assert list(groups_within(lengths, 20, 10)) == [[5], [1, 3], [2, 0, 4]]
    assert list(groups_within(lengths, None, 4)) == [[5, 1, 3], [2, 0, 4]], "groups of equal size"
    assert list(groups_within([5] * 7, 20, 10)) == [[0, 1, 2, 3], [4, 5, 6]]
    assert list(groups_within([], 20, 10)) == []
