"""Chosen layers and noise on states: against the plain mixer on the chosen tensors, and a known deviation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glotfuse.errors import ConfigError
from glotfuse.fusion import Fusion
from glotfuse.fusion.mixers import MIXERS

STATES = [torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)]
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("mixer", ["last", "mean", "global_softmax", "transformer_softmax"])
@pytest.mark.parametrize("given", [[-2, 1], [1, 4]])
def test_chosen_layers_are_mixed_as_if_there_were_no_others(mixer: str, given: list[int]) -> None:
    fusion = Fusion(6, 8, 4, mixer=mixer, layers=given).eval()
    plain = MIXERS.build(mixer, {}, num_layers=2, hidden_size=8).eval()
    plain.load_state_dict(fusion.mixer.inner.state_dict())
    expected = plain([STATES[layer] for layer in ([1, 4] if len(plain.layers) == 2 else [4])], MASK)
    kept = [STATES[layer] for layer in fusion.mixer.layers]
    for found in (fusion.mix(STATES, MASK), fusion.mix(kept, MASK)):
        torch.testing.assert_close(found.mixed, expected.mixed)
        weights = torch.zeros(*expected.layer_weights.shape[:-1], 6)
        weights[..., [1, 4]] = expected.layer_weights
        torch.testing.assert_close(found.layer_weights, weights)


@pytest.mark.parametrize("layers", [[], [0, -6], [6], [-7], [2, 2]])
def test_layers_that_are_not_there_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"fusion\.layers.*-6 to -1"):
        Fusion(6, 8, 4, layers=layers)


def test_noise_has_the_stated_size_and_is_in_training_alone() -> None:
    fusion = Fusion(2, 64, 64, mixer="mean", state_noise=0.5)
    fusion.projector = Plain()
    states = [3.0 * torch.randn(4, 200, 64)] * 2
    mask = torch.ones(4, 200, dtype=torch.bool)
    clean = fusion.eval()(states, mask).embeddings
    noisy = fusion.train()(states, mask).embeddings
    deviation = (noisy - clean)[:, :-1].pow(2).mean().sqrt() / clean[:, :-1].pow(2).mean().sqrt()
    assert float(deviation) == pytest.approx(0.5, rel=0.02)
    assert torch.equal(fusion.eval()(states, mask).embeddings, clean)


class Plain(torch.nn.Module):
    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> Any:
        return states, mask.sum(1)
