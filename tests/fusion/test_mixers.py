"""Every mixer equals its textbook form, values and gradients.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width, N heads.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.errors import ConfigError
from glotfuse.fusion import MIXERS, Mixer
from glotfuse.fusion.mixers import GlobalSoftmax, TransformerSoftmax

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
NAMES = ("last", "mean", "global_softmax", "transformer_softmax")


def inputs(batch_size: int, num_tokens: int, num_layers: int, width: int) -> tuple[list[Tensor], Tensor]:
    """Random states with gradient and a right-padded mask whose first row is full."""
    states = [torch.randn(batch_size, num_tokens, width, dtype=torch.float64) for _ in range(num_layers)]
    lengths = torch.randint(1, num_tokens + 1, (batch_size,))
    lengths[0] = num_tokens
    mask = torch.arange(num_tokens) < lengths.unsqueeze(1)
    return [x.requires_grad_() for x in states], mask


def randomised(mixer: Mixer) -> Mixer:
    """In float64, with no parameter left at a start value of zero or one that would hide a mistake."""
    mixer = mixer.double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return mixer


def build(name: str, num_layers: int, width: int, **options: float) -> Mixer:
    return randomised(MIXERS.build(name, options, num_layers=num_layers, hidden_size=width))


def assert_same(mixer: Mixer, textbook, states: list[Tensor], mask: Tensor) -> None:
    """Same output, same weights, and the same gradients of a random function of both."""
    found, expected = mixer(states, mask), textbook(mixer, states, mask)
    torch.testing.assert_close(found.mixed, expected[0], **TIGHT)
    torch.testing.assert_close(found.layer_weights, expected[1], **TIGHT)
    readers = [torch.randn_like(x) for x in expected]
    leaves = [*states, *mixer.parameters()]
    ours, theirs = (
        gradients((readers[0] * mixed).sum() + (readers[1] * weights).sum(), leaves)
        for mixed, weights in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **TIGHT)


def gradients(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of all leaves, zero where one has no influence."""
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


# Textbook forms: plain, with all layers in one tensor (B,T,L,D)


def textbook_last(mixer: Mixer, states: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return states[-1] * mask[..., None], F.one_hot(torch.tensor(len(states) - 1), len(states)).double()


def textbook_mean(mixer: Mixer, states: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    return torch.stack(states).mean(0) * mask[..., None], torch.full(
        (len(states),), 1 / len(states), dtype=torch.float64
    )


def textbook_global(mixer: Mixer, states: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(mixer, GlobalSoftmax)
    temperature = 0.1 * (1000.0 / 0.1) ** torch.sigmoid(mixer.raw_temperature)
    powers = torch.exp(temperature * mixer.layer_logits)
    weights = powers / powers.sum()
    return torch.einsum("btld,l->btd", torch.stack(states, 2), weights) * mask[..., None], weights


def textbook_transformer(mixer: Mixer, states: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's own encoder layer over the L+1 positions of every token."""
    assert isinstance(mixer, TransformerSoftmax)
    stacked = torch.stack(states, 2)  # (B,T,L,D)
    cls = mixer.cls.expand(*stacked.shape[:2], 1, -1)
    sequence = torch.cat([cls, stacked + mixer.positions], 2)
    output = mixer.layer(sequence.flatten(0, 1))[:, 0].view(*mask.shape, -1)
    weights = torch.softmax(mixer.to_weights(output), -1) * mask[..., None]
    return torch.einsum("btld,btl->btd", stacked, weights), weights


TEXTBOOK = dict(zip(NAMES, (textbook_last, textbook_mean, textbook_global, textbook_transformer), strict=True))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_equals_the_textbook_form(name: str, data: st.DataObject) -> None:
    batch_size, num_tokens, num_layers, heads, per_head = (data.draw(st.integers(1, high)) for high in (4, 6, 5, 4, 5))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    options = {"num_heads": heads, "feedforward_size": 7, "dropout": 0.0} if name == "transformer_softmax" else {}
    mixer = build(name, num_layers, heads * per_head, **options)
    assert_same(mixer, TEXTBOOK[name], *inputs(batch_size, num_tokens, num_layers, heads * per_head))


def test_positions_start_with_the_stated_deviation() -> None:
    for options, expected in (({}, 0.02), ({"position_std": 1.0}, 1.0)):
        mixer = TransformerSoftmax(24, 1024, feedforward_size=4, **options)
        assert float(mixer.positions.detach().std()) == pytest.approx(expected, rel=0.05)
    with pytest.raises(ConfigError, match="position_std of at least 0; found -1"):
        build("transformer_softmax", 2, 8, position_std=-1.0)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_transformer_softmax_equals_the_textbook_layer_in_evaluation_mode(num_heads: int) -> None:
    torch.manual_seed(num_heads)
    mixer = build("transformer_softmax", 12, 48, num_heads=num_heads, dropout=0.3).eval()
    assert_same(mixer, textbook_transformer, *inputs(3, 7, 12, 48))


# Dropout


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_dropout_acts_at_the_four_places_of_the_textbook_layer(num_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same masks, the folded form equals all keys and values projected one by one, and so do gradients."""
    torch.manual_seed(7)
    batch_size, num_tokens, num_layers, width = 2, 3, 4, 8
    mixer = build("transformer_softmax", num_layers, width, num_heads=num_heads, feedforward_size=10, dropout=0.4)
    assert isinstance(mixer, TransformerSoftmax)
    kept: list[Tensor] = []

    def drop(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert (p, training) == (0.4, True)
        kept.append((torch.rand_like(x) > p).double() / (1 - p))
        return x * kept[-1]

    def plain(mixer: Mixer, states: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(mixer, TransformerSoftmax)
        attention_mask, after_attention, inside, after_feedforward = kept
        layer, attention = mixer.layer, mixer.layer.self_attn
        stacked = torch.stack(states, 2)
        sequence = torch.cat([mixer.cls.expand(batch_size, num_tokens, 1, -1), stacked + mixer.positions], 2)
        query, key, value = F.linear(sequence, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        per_head = []
        for head in range(num_heads):
            part = slice(head * width // num_heads, (head + 1) * width // num_heads)
            scores = (query[:, :, 0, None, part] * key[..., part]).sum(-1) / math.sqrt(width // num_heads)
            weights = torch.softmax(scores, -1) * attention_mask[:, :, head]  # (B,T,L+1)
            per_head.append((weights[..., None] * value[..., part]).sum(2))
        attended = attention.out_proj(torch.cat(per_head, -1)) * after_attention
        state = layer.norm1(sequence[:, :, 0] + attended)
        hidden = torch.relu(layer.linear1(state)) * inside
        state = layer.norm2(state + layer.linear2(hidden) * after_feedforward)
        weights = torch.softmax(mixer.to_weights(state), -1) * mask[..., None]
        return (stacked * weights[..., None]).sum(2), weights

    monkeypatch.setattr(F, "dropout", drop)
    assert_same(mixer, plain, *inputs(batch_size, num_tokens, num_layers, width))
    assert len(kept) == 4


def test_dropout_has_the_textbook_layers_distribution() -> None:
    """Mean and standard deviation of each weight over 20,000 draws, within five standard errors."""
    torch.manual_seed(3)
    draws, num_layers, width = 20_000, 3, 8
    mixer = build("transformer_softmax", num_layers, width, num_heads=2, feedforward_size=6, dropout=0.3)
    states = [torch.randn(1, 1, width, dtype=torch.float64).expand(1, draws, width) for _ in range(num_layers)]
    mask = torch.ones(1, draws, dtype=torch.bool)
    with torch.no_grad():
        found = mixer.train()(states, mask).layer_weights[0]
        expected = textbook_transformer(mixer, states, mask)[1][0]
    assert expected.std(0).min() > 0.02  # dropout is on
    error = (found.var(0) + expected.var(0)).div(draws).sqrt()
    assert ((found.mean(0) - expected.mean(0)).abs() < 5 * error).all()
    spread = [(x - x.mean(0)).pow(2) for x in (found, expected)]
    error = (spread[0].var(0) + spread[1].var(0)).div(draws).sqrt()
    assert ((spread[0].mean(0) - spread[1].mean(0)).abs() < 5 * error).all()


def test_no_dropout_in_evaluation_mode() -> None:
    mixer = build("transformer_softmax", 3, 8, dropout=0.5).eval()
    states, mask = inputs(2, 4, 3, 8)
    assert torch.equal(mixer(states, mask).mixed, mixer(states, mask).mixed)


# Weights and padding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_layer_weights_sum_to_one_and_padding_gets_nothing(name: str, training: bool) -> None:
    torch.manual_seed(1)
    mixer = build(name, 5, 8).train(training)
    states, mask = inputs(4, 6, 5, 8)
    assert not mask.all()
    mixed, weights = mixer(states, mask)
    assert (weights >= 0).all()
    if weights.dim() == 3:
        torch.testing.assert_close(weights.sum(-1), mask.double(), **TIGHT)
        assert not weights[~mask].any()
    else:
        assert weights.shape == (5,)
        torch.testing.assert_close(weights.sum(), torch.ones((), dtype=torch.float64), **TIGHT)
    assert not mixed[~mask].any()
    assert mixed[mask].abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_padding_reaches_neither_output_nor_gradients(name: str) -> None:
    torch.manual_seed(2)
    mixer = build(name, 3, 8).eval()
    states, mask = inputs(3, 5, 3, 8)
    results = []
    for filler in (0.0, 1e3):
        filled = [torch.where(mask[..., None], x, torch.full_like(x, filler)) for x in states]
        mixed = mixer(filled, mask).mixed
        results.append([mixed, *gradients(mixed.pow(3).sum(), [*states, *mixer.parameters()])])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, **TIGHT)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_are_left_as_they_are(name: str) -> None:
    states, mask = inputs(2, 3, 4, 8)
    before = [x.detach().clone() for x in states]
    build(name, 4, 8)(states, mask)
    assert all(torch.equal(x, y) for x, y in zip(states, before, strict=True))


# Start values and bounds


def test_transformer_softmax_starts_as_the_paper_does() -> None:
    mixer = TransformerSoftmax(6, 16)
    assert not mixer.cls.any()
    assert mixer.positions.shape == (6, 16)
    layer = mixer.layer
    assert (layer.self_attn.num_heads, layer.linear1.out_features, layer.norm_first) == (1, 2048, False)
    assert layer.activation is F.relu
    assert {m.p for m in layer.modules() if isinstance(m, nn.Dropout)} == {0.1} == {layer.self_attn.dropout}


@pytest.mark.parametrize("start", [0.11, 1.0, 10.0, 101.0, 999.0])
def test_temperature_starts_exactly_where_it_was_asked_to(start: float) -> None:
    mixer = GlobalSoftmax(4, 8, temperature=start)
    assert mixer.temperature.item() == pytest.approx(start, rel=1e-5)
    states, mask = inputs(1, 2, 4, 8)
    torch.testing.assert_close(mixer(states, mask).layer_weights, torch.full((4,), 0.25))


@pytest.mark.parametrize("learning_rate", [1.0, 1e6, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_temperature_stays_positive_and_bounded_after_wild_steps(learning_rate: float, sign: int) -> None:
    torch.manual_seed(0)
    mixer = GlobalSoftmax(4, 8, temperature=101.0, min_temperature=0.5, max_temperature=500.0)
    optimizer = torch.optim.SGD(mixer.parameters(), lr=learning_rate)
    seen = []
    for _ in range(5):
        optimizer.zero_grad()
        (sign * mixer.temperature * 100).backward()
        optimizer.step()
        temperature = mixer.temperature.item()
        assert math.isfinite(temperature)
        assert 0.5 * (1 - 1e-5) <= temperature <= 500.0 * (1 + 1e-5)
        seen.append(temperature)
    assert abs(seen[-1] - 101.0) > 1  # it was a wild step


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer_softmax", {"num_heads": 3}, "num_heads to divide the encoder width 8; found 3"),
        ("transformer_softmax", {"num_heads": 0}, "num_heads to divide"),
        ("transformer_softmax", {"num_heads": "two"}, r"transformer_softmax\.num_heads: .*valid integer.*found 'two'"),
        ("transformer_softmax", {"feedforward_size": 0}, "feedforward_size of at least 1; found 0"),
        ("transformer_softmax", {"dropout": 1.0}, r"dropout in \[0, 1\); found 1\.0"),
        ("transformer_softmax", {"dropout": float("nan")}, r"dropout in \[0, 1\); found nan"),
        ("global_softmax", {"temperature": 0.0}, "Expected 0 < min_temperature < temperature"),
        ("global_softmax", {"temperature": 2000.0}, "found 0.1, 2000.0, 1000.0"),
        ("global_softmax", {"min_temperature": -1.0}, "Expected 0 < min_temperature"),
    ],
)
def test_values_out_of_range_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MIXERS.build(name, options, num_layers=2, hidden_size=8)


def test_numbers_that_yaml_reads_as_text_are_understood() -> None:
    mixer = MIXERS.build("transformer_softmax", {"dropout": "2e-1"}, num_layers=2, hidden_size=8)
    assert isinstance(mixer, TransformerSoftmax)
    assert mixer.layer.dropout.p == 0.2
