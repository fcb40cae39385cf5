"""Every kind of encoder and LM: batches, caches and fast paths change no answer, and the answer is the textbook's."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.api import FusedLM
from glotfuse.backbones.recompute import recomputing
from glotfuse.errors import BackboneError
from glotfuse.inputs.batch import PreparedExample, collate, prepare, training_inputs
from glotfuse.model import scoring
from textbook_lm import BRANCHING, textbook_logits
from tiny import ENCODERS, LMS, SOURCE_LANGUAGES, TEXTS, score_labels, tiny_model, with_labels

TOLERANCE = 1e-4
PAIRS = [("xlm-r", lm) for lm in LMS] + [(encoder, "llama") for encoder in ENCODERS if encoder != "xlm-r"]
LABELS = {
    "single": ("science", "politics", "sports"),
    "several": ("health news", "science", "entertainment geography travel", "review category"),
    "beginning": ("sports", "sports news", "politics"),
}
ANSWERS = ("science", "health news", "entertainment geography travel", "sports")


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[FusedLM, str | None]:
    """A model, and a language where the encoder needs one."""
    encoder, lm = request.param
    return tiny_model(encoder, lm), "sin" if encoder in SOURCE_LANGUAGES else None


@pytest.fixture(params=[True, False], ids=["cached", "uncached"])
def cache_head(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def textbook_scores(model: FusedLM, examples: list[PreparedExample]) -> Tensor:
    """(B,R), one example and one label word at a time."""
    return torch.stack(
        [
            torch.stack(
                [
                    -F.cross_entropy(textbook_logits(model, example, ids), torch.tensor(ids), reduction="sum")
                    for ids in model.label_ids
                ]
            )
            for example in examples
        ]
    )


def training_examples(model: FusedLM, language: str | None) -> list[PreparedExample]:
    rows = [{"text": text} for text in TEXTS]
    return prepare(model.reader, model.prompt, rows, answers=ANSWERS, language=language)


def loss_of(model: FusedLM, examples: list[PreparedExample]) -> Tensor:
    return model(**training_inputs(examples, model.encoder.pad_token_id))["loss"]


def gradients(model: FusedLM, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weights.grad.clone() for name, weights in model.fusion.named_parameters()}


@torch.no_grad()
@pytest.mark.parametrize("labels", LABELS)
def test_scores_are_the_textbooks_alone_in_a_batch_cached_or_not(pair: tuple[FusedLM, str | None], labels: str) -> None:
    model, language = with_labels(pair[0], LABELS[labels]), pair[1]
    examples = model.prepare(TEXTS, language)
    lengths = {len(ids) for ids in model.label_ids}
    assert (lengths == {1}) == (labels == "single"), model.label_ids
    expected = textbook_scores(model, examples)
    assert expected.std(0).min() > 0.02, "the texts should score differently"
    for cached in (True, False):
        model.cache_head = cached
        together = score_labels(model, examples)
        alone = torch.cat([score_labels(model, [example]) for example in examples])
        torch.testing.assert_close(together, expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(alone, expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("lm", ["llama", "gpt2", "mistral-short"])
def test_scores_with_text_after_the_span_are_the_textbooks(lm: str) -> None:
    model = with_labels(tiny_model(lm=lm), LABELS["several"], style="plain", include_text=True)
    examples = model.prepare(TEXTS)
    assert len({len(example.text_ids) for example in examples}) > 1
    expected = textbook_scores(model, examples)
    torch.testing.assert_close(score_labels(model, examples), expected, atol=TOLERANCE, rtol=0)


NOT_BRANCHING = ("bloom", "mpt", "mamba", "mistral-short")


@torch.no_grad()
@pytest.mark.parametrize("lm", [*BRANCHING, *NOT_BRANCHING])
def test_label_words_are_read_as_a_tree_where_the_lm_obeys_a_mask(lm: str) -> None:
    model = with_labels(tiny_model(lm=lm), LABELS["beginning"])
    score_labels(model, model.prepare(TEXTS))
    assert bool(model.branching) == (lm in BRANCHING)


def refuse(mask: Tensor) -> Tensor:
    raise ValueError("too many values to unpack (expected 2)")


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "said"),
    [(torch.zeros_like, "one by one"), (refuse, "cannot read them as a tree")],
    ids=["ignores", "refuses"],
)
def test_an_lm_that_does_not_obey_the_mask_scores_words_one_by_one(
    change: Callable[[Tensor], Tensor], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_labels(tiny_model(), LABELS["several"])
    examples = model.prepare(TEXTS)
    expected = textbook_scores(model, examples)
    run = model.lm.run

    def changed(*args: Any, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        if attention_mask is not None and attention_mask.dim() == 4:
            attention_mask = change(attention_mask)
        return run(*args, attention_mask=attention_mask, **options)

    monkeypatch.setattr(model.lm, "run", changed)
    torch.testing.assert_close(score_labels(model, examples), expected, atol=TOLERANCE, rtol=0)
    assert model.branching is False
    assert said in caplog.text


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "share", "branches"),
    [
        (torch.bfloat16, 1.03, True),
        (torch.bfloat16, 1.2, False),
        (torch.float32, 1.03, False),
    ],
)
def test_half_precision_may_round_a_share_of_a_score(
    dtype: torch.dtype, share: float, branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_labels(tiny_model(), LABELS["several"])
    model.lm.model.to(dtype)

    def off_by_a_share(question: Any) -> Any:
        found = question.one_by_one()
        return found._replace(values=share * found.values)

    monkeypatch.setattr(scoring._Question, "by_tree", off_by_a_share)
    score_labels(model, model.prepare(TEXTS))
    assert model.branching is branches


@torch.no_grad()
def test_many_label_words_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_labels(tiny_model(), LABELS["several"])
    model.branching = False
    examples = model.prepare(TEXTS)
    monkeypatch.setattr("glotfuse.model.scoring._MAX_ROWS", 5)
    expected = textbook_scores(model, examples)
    torch.testing.assert_close(score_labels(model, examples), expected, atol=TOLERANCE, rtol=0)


def test_classify_keeps_the_order_whatever_the_batch_size() -> None:
    model = with_labels(tiny_model(), LABELS["several"])
    with torch.no_grad():
        expected = textbook_scores(model, model.prepare(TEXTS)).log_softmax(1)
    for batch_size in (1, 3, 4):
        results = model.classify(TEXTS, batch_size=batch_size)
        for row, result in zip(expected, results, strict=True):
            found = torch.tensor([result.log_probabilities[label] for label in model.labels])
            torch.testing.assert_close(found, row, atol=TOLERANCE, rtol=0)
            assert result.label == model.labels[int(row.argmax())]
            assert sum(result.probabilities.values()) == pytest.approx(1.0)


def test_answers_have_no_dropout_even_in_training_mode() -> None:
    model = tiny_model(mixer="transformer_softmax", mixer_options={"dropout": 0.5})
    expected = model.classify(TEXTS)
    answer = model.generate(TEXTS, max_new_tokens=4)
    model.train()
    assert model.classify(TEXTS) == expected
    assert model.generate(TEXTS, max_new_tokens=4) == answer
    assert "".join(model.stream(TEXTS[0], max_new_tokens=4)).strip() == answer[0]
    assert model.training
    assert model.fusion.training
    assert not model.encoder.training
    assert not model.lm.training


def test_loss_and_gradients_are_the_textbooks(pair: tuple[FusedLM, str | None]) -> None:
    model, language = with_labels(pair[0], LABELS["single"]), pair[1]
    examples = training_examples(model, language)
    assert len({len(example.answer_ids) for example in examples}) > 1
    total = sum(
        F.cross_entropy(
            textbook_logits(model, example, example.answer_ids), torch.tensor(example.answer_ids), reduction="sum"
        )
        for example in examples
    )
    expected = total / sum(len(example.answer_ids) for example in examples)
    expected_gradients = gradients(model, expected)
    assert all(gradient.abs().max() > 1e-5 for gradient in expected_gradients.values())
    model.classify(TEXTS, language=language)  # a head cached for inference serves training as well
    for cached in (True, False):
        model.cache_head = cached
        loss = loss_of(model, examples)
        torch.testing.assert_close(loss, expected, atol=TOLERANCE, rtol=0)
        for name, gradient in gradients(model, loss).items():
            torch.testing.assert_close(gradient, expected_gradients[name], atol=TOLERANCE, rtol=1e-3)


def frozen_bytes(model: FusedLM) -> str:
    digest = hashlib.sha256()
    for part in (model.encoder, model.lm):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def step(model: FusedLM, examples: list[PreparedExample]) -> float:
    """One optimizer step over everything that takes a gradient; returns the loss before it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.1)
    loss = loss_of(model, examples)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.mark.parametrize("encoder", ["mt5", "xlm-r"])
def test_frozen_weights_are_byte_identical_after_a_step(encoder: str, cache_head: bool) -> None:
    torch.manual_seed(0)  # of the dropout
    model = tiny_model(encoder)
    model.cache_head = cache_head
    before = frozen_bytes(model)
    trained = {name: weights.clone() for name, weights in model.fusion.named_parameters()}
    examples = training_examples(model, None)
    first = float(loss_of(model, examples).detach())
    model.train()
    for _ in range(5):
        step(model, examples)
    model.eval()
    assert frozen_bytes(model) == before
    assert all(p.grad is None for part in (model.encoder, model.lm) for p in part.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {f"fusion.{n}" for n in trained}
    assert all(not torch.equal(weights, trained[name]) for name, weights in model.fusion.named_parameters())
    assert float(loss_of(model, examples).detach()) < first


@pytest.mark.parametrize("lm", ["llama", "gemma2", "gpt2"])
def test_half_precision_backbones_train_and_classify(lm: str) -> None:
    model = tiny_model("mt5", lm, labels=LABELS["several"], dtype="bfloat16")
    full = tiny_model("mt5", lm, labels=LABELS["several"])
    assert model.encoder.model.dtype == model.lm.dtype == torch.bfloat16
    assert {p.dtype for p in model.fusion.parameters()} == {torch.float32}
    examples = training_examples(model, None)
    assert float(loss_of(model, examples).detach()) == pytest.approx(float(loss_of(full, examples).detach()), rel=0.05)
    model.train()
    losses = [step(model, examples) for _ in range(6)]
    assert losses[-1] < losses[0]
    for cached in (True, False):
        model.cache_head = cached
        assert all(sum(r.probabilities.values()) == pytest.approx(1.0) for r in model.classify(TEXTS))
    assert len(model.generate(TEXTS, max_new_tokens=3)) == len(TEXTS)


@torch.no_grad()
def test_a_large_tree_is_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_labels(tiny_model(), LABELS["several"])
    examples = model.prepare(TEXTS)
    expected = score_labels(model, examples)
    assert model.branching
    monkeypatch.setattr("glotfuse.model.scoring._MAX_LOGITS", 1)
    torch.testing.assert_close(score_labels(model, examples), expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_words_are_a_tree_without_a_prompt_head_too() -> None:
    model = with_labels(tiny_model(lm="gpt2"), LABELS["beginning"], style="plain")
    model.prompt = dataclasses.replace(model.prompt, head_ids=())
    examples = model.prepare(TEXTS)
    expected = textbook_scores(model, examples)
    torch.testing.assert_close(score_labels(model, examples), expected, atol=TOLERANCE, rtol=0)
    assert model.branching


@pytest.mark.parametrize("lm", ["llama", "gemma3", "gpt2", "opt", "gpt-neox", "bloom"])
def test_recomputed_layers_give_the_same_loss_and_gradients(lm: str) -> None:
    model = tiny_model(lm=lm)
    examples = training_examples(model, None)
    loss = loss_of(model, examples)
    expected = gradients(model, loss)
    model.gradient_checkpointing = True
    again = loss_of(model, examples)
    found = gradients(model, again)
    torch.testing.assert_close(again, loss, atol=TOLERANCE, rtol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=TOLERANCE, rtol=1e-3, msg=name)
    assert not any("forward" in vars(module) for module in model.lm.modules())
    assert score_labels(model, model.prepare(TEXTS)).isfinite().all()


def test_an_lm_without_marked_layers_cannot_recompute() -> None:
    model = tiny_model()
    model.gradient_checkpointing = True
    model.lm.model.model.layers = torch.nn.ModuleList()
    with pytest.raises(BackboneError, match="gradient_checkpointing to false"):
        loss_of(model, training_examples(model, None))


def test_recomputing_leaves_the_hooks_of_accelerate_as_they_were() -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    model = tiny_model("xlm-r", "llama")
    layers = [m for m in model.lm.model.modules() if type(m).__name__ == "LlamaDecoderLayer"]
    for layer in layers:
        add_hook_to_module(layer, ModelHook())
    before = [layer.__dict__["forward"] for layer in layers]
    with recomputing(model.lm.model):
        assert all(layer.forward is not hook for layer, hook in zip(layers, before, strict=True))
    assert [layer.__dict__.get("forward") for layer in layers] == before
    from accelerate.hooks import remove_hook_from_module

    for layer in layers:
        remove_hook_from_module(layer)


def test_a_head_of_one_token_is_not_cached_in_training() -> None:
    model = tiny_model("xlm-r", "llama")
    model.prompt = dataclasses.replace(model.prompt, head_ids=model.prompt.head_ids[:1])
    sequences = model.assemble(collate(model.prepare(TEXTS[:2]), model.encoder.pad_token_id))
    assert model.run_lm(sequences, sequences.last())[1] is None
    with torch.no_grad():
        assert model.run_lm(sequences, sequences.last())[1] is not None
