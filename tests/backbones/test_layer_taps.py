"""Layers added up while the encoder runs are the layers that transformers collects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from glotfuse.backbones.layer_taps import find_taps
from glotfuse.inputs.padding import pad_and_mask
from tiny import ENCODERS, TEXTS, score_labels, tiny_encoder, tiny_model


def batch_of(family: str) -> tuple[Tensor, Tensor]:
    return pad_and_mask(tiny_encoder(family).tokenize(TEXTS), pad_token_id=1)


@pytest.mark.parametrize("family", ENCODERS)
def test_every_layer_has_a_tap(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder(family)
    ids, mask = batch_of(family)
    expected = encoder(ids, mask)
    monkeypatch.setattr(encoder, "forward", None)  # which would collect all layers
    for layer in range(encoder.num_layers):
        weights = torch.zeros(encoder.num_layers)
        weights[layer] = 2.0
        found = encoder.sum_layers(ids, mask, weights, lambda x, _: x + 1)
        torch.testing.assert_close(found[mask], 2 * (expected[layer] + 1)[mask])
    weights = torch.rand(encoder.num_layers)
    mixed = sum(w * x for w, x in zip(weights, expected, strict=True))
    torch.testing.assert_close(encoder.sum_layers(ids, mask, weights, lambda x, _: x)[mask], mixed[mask])


def test_an_encoder_without_taps_is_summed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder("bert")
    ids, mask = batch_of("bert")
    monkeypatch.setattr(encoder, "_taps", None)
    weights = torch.rand(encoder.num_layers)
    mixed = sum(w * x for w, x in zip(weights, encoder(ids, mask), strict=True))
    torch.testing.assert_close(encoder.sum_layers(ids, mask, weights, lambda x, _: x), mixed)


def test_a_module_that_runs_twice_is_no_tap() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)

    def run() -> list[Tensor]:
        first = layer(torch.ones(1, 3))
        return [first, layer(first)]

    assert find_taps(model, run) is None


@pytest.mark.parametrize("layer_norm", ["none", "rms"])
@pytest.mark.parametrize("mixer", ["last", "mean", "global_softmax"])
def test_answers_do_not_hold_all_layers(mixer: str, layer_norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("mt5", mixer=mixer, layer_norm=layer_norm, labels=("sports", "science"))
    if mixer == "global_softmax":
        torch.manual_seed(0)
        nn.init.normal_(model.fusion.mixer.layer_logits)
    examples = model.prepare(TEXTS)
    expected = score_labels(model, examples).detach()  # with gradients: all layers are collected

    def refuse(*_: object) -> None:
        raise AssertionError("all layers were asked for")

    monkeypatch.setattr(model.encoder, "forward", refuse)
    with torch.inference_mode():
        torch.testing.assert_close(score_labels(model, examples), expected, atol=1e-5, rtol=0)
