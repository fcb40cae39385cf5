"""Every projector equals a plain computation and keeps to the valid positions.

Shapes: B batch, T encoder tokens, S span positions, D encoder width, H LM width.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from glotfuse.errors import ConfigError
from glotfuse.fusion import PROJECTORS
from glotfuse.fusion.projectors import LinearProjector, MLPProjector, PerceiverProjector

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
D, H = 8, 6


def inputs(lengths: tuple[int, ...] = (5, 2, 4)) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(*mask.shape, D, dtype=torch.float64, requires_grad=True), mask


def build(name: str, **options: int):
    torch.manual_seed(4)
    projector = PROJECTORS.build(name, options, encoder_size=D, lm_size=H).double()
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return projector


def assert_same(found: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, **TIGHT)
    reader = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((reader * found).sum(), leaves),
        torch.autograd.grad((reader * expected).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **TIGHT)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def test_linear_is_one_affine_map() -> None:
    projector, (mixed, mask) = build("linear"), inputs()
    assert isinstance(projector, LinearProjector)
    found = projector(mixed, mask)
    expected = mixed @ projector.map.weight.T + projector.map.bias
    assert_same(found.embeddings, expected, [mixed, *projector.parameters()])
    assert found.lengths.tolist() == [5, 2, 4]


@pytest.mark.parametrize(("inner_size", "width"), [(None, H), (11, 11)])
def test_mlp_is_two_affine_maps_around_a_gelu(inner_size: int | None, width: int) -> None:
    projector, (mixed, mask) = build("mlp", inner_size=inner_size), inputs()
    assert isinstance(projector, MLPProjector)
    first, _, second = projector.map
    assert first.weight.shape == (width, D)
    found = projector(mixed, mask)
    expected = gelu(mixed @ first.weight.T + first.bias) @ second.weight.T + second.bias
    assert_same(found.embeddings, expected, [mixed, *projector.parameters()])
    assert found.lengths.tolist() == [5, 2, 4]


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_perceiver_is_cross_attention_over_the_valid_tokens(num_heads: int) -> None:
    """One row, one head and one latent after the other, on the valid tokens alone."""
    projector, (mixed, mask) = build("perceiver", num_latents=3, num_heads=num_heads), inputs()
    assert isinstance(projector, PerceiverProjector)
    found = projector(mixed, mask)
    attention, size = projector.attention, D // num_heads
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    rows = []
    for row, valid in zip(mixed, mask, strict=True):
        tokens = layer_norm(row[valid], projector.norm_input)
        query = projector.latents @ weights[0].T + biases[0]
        key, value = (tokens @ weights[i].T + biases[i] for i in (1, 2))
        heads = []
        for part in (slice(head * size, (head + 1) * size) for head in range(num_heads)):
            powers = torch.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            heads.append(powers / powers.sum(1, keepdim=True) @ value[:, part])
        attended = torch.cat(heads, 1) @ attention.out_proj.weight.T + attention.out_proj.bias
        latents = projector.latents + attended
        first, _, second = projector.feedforward
        hidden = gelu(layer_norm(latents, projector.norm_latents) @ first.weight.T + first.bias)
        latents = latents + hidden @ second.weight.T + second.bias
        rows.append(latents @ projector.map.weight.T + projector.map.bias)
    assert_same(found.embeddings, torch.stack(rows), [mixed, *projector.parameters()])


def test_perceiver_ignores_padding_and_has_a_fixed_length() -> None:
    projector, (mixed, mask) = build("perceiver", num_latents=3, num_heads=2), inputs()
    expected = projector(mixed, mask)
    assert expected.embeddings.shape == (3, 3, H)
    assert expected.lengths.tolist() == [3, 3, 3]
    more = torch.nn.functional.pad(mask, (0, 4))
    filled = torch.where(more[..., None], torch.nn.functional.pad(mixed, (0, 0, 0, 4)), 1e3)
    found = projector(filled, more)
    torch.testing.assert_close(found.embeddings, expected.embeddings, **TIGHT)
    assert found.lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"inner_size": 0}, "inner_size of at least 1; found 0"),
        ("mlp", {"inner_size": "wide"}, r"mlp\.inner_size: .*found 'wide'"),
        ("perceiver", {"num_latents": 0}, "num_latents of at least 1; found 0"),
        ("perceiver", {"num_heads": 3}, "num_heads to divide the encoder width 8; found 3"),
    ],
)
def test_values_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PROJECTORS.build(name, options, encoder_size=D, lm_size=H)
