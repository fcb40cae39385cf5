"""The summary, and dropout on states and span positions: in training only, at the stated rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glotfuse.errors import ConfigError
from glotfuse.fusion import Fusion

LAYERS, WIDTH, LM_WIDTH = 3, 8, 6


def fusion(**options: Any) -> Fusion:
    torch.manual_seed(0)
    return Fusion(LAYERS, WIDTH, LM_WIDTH, mixer="mean", boundary="normal", **options)


def batch(num_tokens: int = 50) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = [torch.randn(40, num_tokens, WIDTH, generator=generator) for _ in range(LAYERS)]
    mask = torch.arange(num_tokens) < torch.randint(20, num_tokens, (40, 1), generator=generator)
    return states, mask


def test_evaluation_is_untouched() -> None:
    plain, dropping = fusion().eval(), fusion(state_dropout=0.5, token_dropout=0.5).eval()
    for expected, found in zip(plain(*batch()), dropping(*batch()), strict=True):
        assert torch.equal(expected, found)


def test_token_dropout_leaves_out_positions_at_its_rate_but_never_the_boundary() -> None:
    states, mask = batch()
    span = fusion(token_dropout=0.3).train()(states, mask)
    lengths = mask.sum(1)
    assert span.mask[torch.arange(len(mask)), lengths].all()
    tokens = span.mask.clone()
    tokens[torch.arange(len(mask)), lengths] = False
    assert not (tokens[:, :-1] & ~mask).any()
    assert float(tokens.sum() / mask.sum()) == pytest.approx(0.7, abs=0.05)


def test_state_dropout_is_inverted_dropout_before_the_projector() -> None:
    states, mask = batch()
    module = fusion(state_dropout=0.4).train()
    seen: list[torch.Tensor] = []
    module.projector.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    module(states, mask)
    mixed = torch.stack(states).mean(0) * mask.unsqueeze(-1)
    zeroed = (seen[0] == 0) & (mixed != 0)
    assert float(zeroed.sum() / (mixed != 0).sum()) == pytest.approx(0.4, abs=0.03)
    torch.testing.assert_close(seen[0][~zeroed], mixed[~zeroed] / 0.6)


@pytest.mark.parametrize("name", ["state_dropout", "token_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_values_that_are_no_probability_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        fusion(**{name: value})


@pytest.mark.parametrize("match_scale", [None, 0.25])
def test_summary_is_the_mean_of_the_valid_vectors_at_their_scale(match_scale: float | None) -> None:
    states, mask = batch()
    plain = fusion(match_scale=match_scale).eval()(states, mask)
    span = fusion(match_scale=match_scale, summary=True).eval()(states, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        mean = plain.embeddings[row, :length].mean(0)
        if match_scale is not None:
            mean = mean * match_scale / mean.pow(2).mean().sqrt()
        torch.testing.assert_close(span.embeddings[row, 0], mean, atol=1e-5, rtol=1e-3)
    assert torch.equal(span.embeddings[:, 1:], plain.embeddings)
    assert torch.equal(span.mask[:, 1:], plain.mask)


def test_summary_is_never_left_out_and_sees_the_tokens_that_are() -> None:
    states, mask = batch()
    whole = fusion(summary=True).eval()(states, mask)
    span = fusion(summary=True, token_dropout=0.9).train()(states, mask)
    assert span.mask[:, 0].all()
    assert torch.equal(span.embeddings[:, 0], whole.embeddings[:, 0])
