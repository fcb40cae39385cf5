"""Whether an LM can generate from embeddings is known when it is loaded, and said before anything is trained."""

from __future__ import annotations

import logging

import pytest
import torch

from glotfuse.backbones import LM
from glotfuse.errors import BackboneError
from tiny import TEXTS, tiny_lm, tiny_model


@pytest.mark.parametrize("family", ["falcon-h1", "gemma3-vision"])
def test_classes_that_do_not_name_embeddings_generate_from_them(family: str) -> None:
    lm = tiny_lm(family)
    assert lm.no_generation is None
    ids = torch.tensor([[5, 60, 61, 62, 63]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = lm.model.generate(input_ids=ids, **options)[:, ids.shape[1] :]
    assert lm.model.generate(inputs_embeds=lm.embed(ids), **options).tolist() == expected.tolist()


def again(lm: LM) -> LM:
    return LM(lm.model, lm.tokenizer, lm.identity)


def test_an_lm_that_loses_embeddings_is_found_out_when_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("xlm-r", "llama")
    original = model.lm.model.prepare_inputs_for_generation

    def losing(input_ids: torch.Tensor, **kwargs: object) -> dict[str, object]:
        found = original(input_ids, **kwargs)
        if found.get("inputs_embeds") is not None:
            found["inputs_embeds"] = torch.zeros_like(found["inputs_embeds"])
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(model.lm.model, "prepare_inputs_for_generation", losing)
    with caplog.at_level(logging.WARNING, "glotfuse"):
        model.lm = again(model.lm)
    assert (
        model.lm.no_generation
        == "from the embeddings of a few tokens it generates others than from the tokens themselves"
    )
    assert "can be trained and can classify, but not generate" in caplog.text
    assert len(model.classify(TEXTS, labels=["science", "politics"])) == len(TEXTS)
    for ask in (lambda: model.generate(TEXTS), lambda: list(model.stream(TEXTS[0]))):
        with pytest.raises(BackboneError, match="choose another LM or a newer transformers"):
            ask()


def test_an_lm_whose_generate_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama")

    def failing(input_ids: torch.Tensor, **kwargs: object) -> dict[str, object]:
        raise NotImplementedError("tokens alone\nand more")

    monkeypatch.setattr(lm.model, "prepare_inputs_for_generation", failing)
    assert again(lm).no_generation == "tokens alone"
