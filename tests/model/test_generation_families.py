"""Generation with every kind of LM: alone or in a batch, streamed or not, the same answer from the same logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import pytest
import torch
from torch import Tensor

from glotfuse.api import FusedLM
from glotfuse.errors import PromptError
from glotfuse.inputs.batch import collate
from glotfuse.model.generation import left_padded
from tiny import CHAT, LMS, TEXTS, tiny_model, with_labels

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=LMS)
def lm_model(request: pytest.FixtureRequest) -> FusedLM:
    return tiny_model("xlm-r", request.param)


def styles(model: FusedLM) -> Iterator[FusedLM]:
    yield with_labels(model, ("science", "politics"), style="plain")
    if model.lm.tokenizer.chat_template is not None:
        yield with_labels(model, ("science", "politics"), style="chat")


def show_ids(model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has answers shown as token ids up to their end: random bytes would all be decoded to the same sign."""

    def numbers(rows: Tensor, **_: Any) -> list[str]:
        ends = {*model.prompt.end_ids, model.lm.tokenizer.eos_token_id}
        return [" ".join(str(i) for i in takewhile(lambda i: i not in ends, row)) for row in rows.tolist()]

    monkeypatch.setattr(model.lm.tokenizer, "batch_decode", numbers)


def test_generation_alone_equals_generation_in_a_batch(lm_model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in styles(lm_model):
        show_ids(model, monkeypatch)
        together = model.generate(TEXTS, max_new_tokens=8)
        assert len(set(together)) > 1, "the texts should be answered differently"
        assert [model.generate([text], max_new_tokens=8)[0] for text in TEXTS] == together
        assert model.generate(TEXTS, max_new_tokens=8, batch_size=3) == together


@torch.no_grad()
def test_generation_starts_from_the_logits_that_training_sees(lm_model: FusedLM) -> None:
    for model in styles(lm_model):
        examples = model.prepare(TEXTS)
        sequences = model.assemble(collate(examples, model.encoder.pad_token_id))
        expected, _ = model.run_lm(sequences, sequences.last())
        found = model.lm.model(**left_padded(model, examples, model.prompt)).logits[:, -1]
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
        first = [model.lm.tokenizer.decode([i], skip_special_tokens=True).strip() for i in expected.argmax(1)]
        assert model.generate(TEXTS, max_new_tokens=1) == first


def test_a_stream_is_the_generated_text(lm_model: FusedLM) -> None:
    for model in styles(lm_model):
        for text in TEXTS[:2]:
            pieces = list(model.stream(text, max_new_tokens=12))
            assert "".join(pieces).strip() == model.generate([text], max_new_tokens=12)[0]


def test_beam_search_and_sampling(lm_model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lm_model
    show_ids(model, monkeypatch)
    beams = model.generate(TEXTS, max_new_tokens=4, num_beams=3)
    assert [model.generate([text], max_new_tokens=4, num_beams=3)[0] for text in TEXTS] == beams
    torch.manual_seed(0)
    sampled = model.generate(TEXTS, max_new_tokens=4, do_sample=True, temperature=1.5)
    torch.manual_seed(0)
    assert model.generate(TEXTS, max_new_tokens=4, do_sample=True, temperature=1.5) == sampled
    assert sampled != model.generate(TEXTS, max_new_tokens=4)


def test_several_answers_to_one_text_are_refused() -> None:
    with pytest.raises(PromptError, match="one answer per text"):
        tiny_model().generate(TEXTS, num_return_sequences=2, do_sample=True)


def test_a_stream_that_is_left_early_stops_generating(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("xlm-r", "gpt2", style="plain")
    calls = []
    original = model.lm.model.forward
    monkeypatch.setattr(model.lm.model, "forward", lambda *a, **k: calls.append(1) or original(*a, **k))
    stream = model.stream(TEXTS[0], max_new_tokens=400, eos_token_id=-1)
    next(stream)
    stream.close()
    assert len(calls) < 400


def test_a_failure_while_streaming_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.lm.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(model.stream(TEXTS[0]))


def test_an_instruction_of_ones_own_keeps_the_style() -> None:
    for lm in ("gpt2", "llama"):
        model = tiny_model("xlm-r", lm)
        prompt = model.prompt_for("Summarise.")
        assert (lm in CHAT) == ("assistant" in model.lm.tokenizer.decode(prompt.tail_ids))
        assert "Summarise." in model.lm.tokenizer.decode(prompt.head_ids)
        assert model.generate(TEXTS, instruction="Summarise.", max_new_tokens=8) != model.generate(
            TEXTS, max_new_tokens=8
        )


def test_a_checkpoint_can_ban_repeated_ngrams_and_the_caller_has_the_last_word() -> None:
    model = tiny_model()
    model.settings["prompt"] = {**model.settings["prompt"], "no_repeat_ngram_size": 4}
    with recorded(model) as calls:
        model.generate(TEXTS[:1], max_new_tokens=2)
        model.generate(TEXTS[:1], max_new_tokens=2, no_repeat_ngram_size=3)
    assert [call["no_repeat_ngram_size"] for call in calls] == [4, 3]


@contextmanager
def recorded(model: FusedLM) -> Iterator[list[dict[str, Any]]]:
    """Keeps the options of each call of the LM's own `generate`."""
    calls: list[dict[str, Any]] = []
    original = model.lm.model.generate

    def generate(**options: Any) -> Tensor:
        calls.append(options)
        return original(**options)

    model.lm.model.generate = generate
    try:
        yield calls
    finally:
        model.lm.model.generate = original
