"""Learning from text without labels: what is read, what is written, and the loss against plain computations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glotfuse.errors import DataError
from glotfuse.inputs.batch import Batch, training_inputs
from glotfuse.training.objectives import OBJECTIVES, distillation_loss
from tiny import tiny_model

TEXTS = [f"The team won match number {i} in the last minute of the game, and {i} fans sang." for i in range(6)]
SETTINGS: dict[str, Any] = {"cut": (4, 9), "max_answer_tokens": 500, "seed": 1}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def prepared(model: Any, objective: str, texts: list[str] = TEXTS, **options: Any) -> Any:
    return OBJECTIVES[objective].prepare(model.reader, model.prompt, texts, **{**SETTINGS, **options})


def decoded(model: Any, ids: list[int]) -> str:
    return str(model.lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def test_reconstruction_writes_what_the_encoder_read(model: Any) -> None:
    for text, example in zip(TEXTS, prepared(model, "reconstruction").examples, strict=True):
        assert example.encoder_ids == model.encoder.tokenize([text])[0]
        assert decoded(model, example.answer_ids) == text
        assert example.answer_ids[-1] == model.prompt.end_ids[-1]


def test_a_long_document_is_cut_for_the_encoder_and_the_answer_alike(model: Any) -> None:
    for example in prepared(model, "reconstruction", max_answer_tokens=7).examples:
        written = decoded(model, example.answer_ids)
        assert example.encoder_ids in (model.encoder.tokenize([written])[0], model.encoder.tokenize([written + " "])[0])
        assert example.answer_ids[-1] == model.prompt.end_ids[-1]
        assert any(text.startswith(written) and text != written for text in TEXTS)


@pytest.mark.parametrize("objective", ["reconstruction", "distillation"])
def test_a_text_that_the_encoder_cannot_read_to_its_end_is_left_out(model: Any, objective: str) -> None:
    long = "word " * 300
    found = prepared(model, objective, [*TEXTS, long], cut=(4, 400))
    assert found.num_left_out >= 1
    assert not any(example.truncated for example in found.examples)
    with pytest.raises(DataError, match="found none"):
        prepared(model, objective, [long], cut=(250, 260))


def test_distillation_is_the_divergence_of_the_same_lm_s_predictions(model: Any) -> None:
    """Against the LM run on each row alone, token by token, from ids and the span's embeddings."""
    examples = prepared(model, "distillation").examples
    inputs = training_inputs(examples, model.encoder.pad_token_id)
    batch = Batch(inputs["encoder_ids"], inputs["encoder_mask"], inputs["text_ids"], inputs["labels"][:, 1:])
    loss = distillation_loss(model, batch)["loss"]
    lm, head, tail = model.lm.model, list(model.prompt.head_ids), model.prompt.tail_ids
    total, count = 0.0, 0
    with torch.no_grad():
        for i, example in enumerate(examples):
            assert decoded(model, example.text_ids) in TEXTS[i]
            end = [*tail, *example.answer_ids]
            teacher = lm(input_ids=torch.tensor([[*head, *example.text_ids, *end]])).logits[0]
            row = Batch(*(x[i : i + 1] for x in (batch.encoder_ids, batch.encoder_mask, batch.text_ids)), None)
            span = model.span(row)
            parts = [
                model.lm.embed(torch.tensor(head)),
                span.embeddings[0][span.mask[0]],
                model.lm.embed(torch.tensor(end)),
            ]
            student = lm(inputs_embeds=torch.cat(parts)[None]).logits[0]
            num = len(example.answer_ids)
            p, q = (x[-num - 1 : -1].double().softmax(-1) for x in (teacher, student))
            total += float((p * (p.log() - q.log())).sum())
            count += num
    assert total / count > 1e-3
    assert float(loss) == pytest.approx(total / count, rel=1e-3)


def test_distillation_teaches_the_fusion_and_not_the_teacher(model: Any) -> None:
    examples = prepared(model, "distillation").examples
    inputs = training_inputs(examples, model.encoder.pad_token_id)
    model.objective = OBJECTIVES["distillation"].loss
    try:
        loss = model(**inputs)["loss"]
    finally:
        model.objective = None
    loss.backward()
    assert all(p.grad is None for p in model.lm.parameters())
    assert float(model.fusion.boundary.grad.abs().sum()) > 0
    model.fusion.zero_grad(set_to_none=True)


def test_a_student_that_reads_the_teacher_s_text_has_no_loss(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from glotfuse.training import objectives

    examples = prepared(model, "distillation").examples
    inputs = training_inputs(examples, model.encoder.pad_token_id)
    batch = Batch(inputs["encoder_ids"], inputs["encoder_mask"], inputs["text_ids"], inputs["labels"][:, 1:])
    monkeypatch.setattr(type(model), "assemble", lambda self, _: objectives._plain_sequences(self, batch))
    assert float(distillation_loss(model, batch)["loss"]) == pytest.approx(0.0, abs=1e-6)
