"""The benchmarks' opponent computes what glotfuse computes; the measuring tools measure."""

from __future__ import annotations

import time

import pytest
import torch
from benchmarks.labelling import whole_passes
from benchmarks.measure import alternate, peak_megabytes, row
from benchmarks.steps import our_trainer, random_batches, textbook_trainer
from benchmarks.textbook import TextbookMixer, TextbookModel

from glotfuse.api import FusedLM
from glotfuse.fusion.mixers import TransformerSoftmax
from glotfuse.inputs.batch import PreparedExample, prepare
from tiny import TEXTS, score_labels, tiny_model, with_labels


def make_model() -> FusedLM:
    torch.manual_seed(3)
    model = tiny_model(
        mixer="transformer_softmax", mixer_options={"feedforward_size": 16, "dropout": 0.0}, layer_norm="none"
    )
    return with_labels(model, ("sports", "health news", "science"))


def examples_of(model: FusedLM) -> list[PreparedExample]:
    rows = [{"text": text} for text in TEXTS * 6]
    answers = [("sports", "health news", "science")[i % 3] for i in range(len(rows))]
    return prepare(model.reader, model.prompt, rows, answers=answers)


def test_the_textbook_reaches_the_same_losses_on_the_same_batches() -> None:
    model = make_model()
    batches = random_batches(examples_of(model), seed=1) * 4
    textbook = TextbookModel(model)
    ours, theirs = our_trainer(model, max_tokens=100), textbook_trainer(textbook)
    for trainer in (ours, theirs):
        trainer.optimizer.param_groups[0]["lr"] = 0.01
        trainer.run(batches)
    assert ours.losses[-1] < 0.9 * ours.losses[0], "the weights should have moved"
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-3)


def test_the_textbook_mixer_is_ours() -> None:
    torch.manual_seed(0)
    ours = TransformerSoftmax(3, 8, feedforward_size=16).eval()
    states = [torch.randn(2, 5, 8) for _ in range(3)]
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.testing.assert_close(TextbookMixer(ours).eval()(states, mask), ours(states, mask).mixed)


def test_whole_passes_give_the_same_scores() -> None:
    model = make_model()
    examples = model.prepare(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(whole_passes(model, examples), score_labels(model, examples), atol=1e-4, rtol=0)


def test_the_textbook_learns_to_answer_with_label_words() -> None:
    model = make_model()
    examples = [e for e in examples_of(model) if e.encoder_ids == examples_of(model)[0].encoder_ids][:1]
    textbook = TextbookModel(model)
    trainer = textbook_trainer(textbook)
    trainer.optimizer.param_groups[0]["lr"] = 0.02
    assert set(textbook.classify(model.prepare(TEXTS), max_tokens=3)) <= {"", *model.labels}
    trainer.run([examples] * 300)
    assert textbook.classify(model.prepare(TEXTS[:1]), max_tokens=6) == ["sports"]


def test_peak_memory_sees_what_is_freed_again() -> None:
    def run() -> None:
        block = torch.ones(50_000_000 // 4)
        time.sleep(0.05)
        del block

    assert 45 <= peak_megabytes(run) <= 80


def test_sides_take_turns_and_ratios_follow() -> None:
    order: list[str] = []
    seconds = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm_up=1)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(found) for found in seconds.values()] == [2, 2]
    line = row("x", [1.0, 2.0, 1.0], [4.0, 4.0, 5.0], "s", at_least=4)
    assert (line.ratio, line.met, line.spread) == (4.0, True, "2.00 to 5.00")
    assert not row("x", [1.2], [1.0], "s", at_most=1.1).met
