"""The span: normalised layers, scale, boundary, padding; and the registries behind it.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width, S span positions, H LM width.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from glotfuse.errors import ConfigError
from glotfuse.fusion import MIXERS, PROJECTORS, Fusion, Mixer, MixerOutput, register_mixer, register_projector
from glotfuse.fusion.projectors import Projected, Projector

L, D, H = 3, 8, 6
LENGTHS = (5, 2, 4)
MIXER_NAMES = ("last", "mean", "global_softmax", "transformer_softmax")
PROJECTOR_OPTIONS = {"linear": {}, "mlp": {}, "perceiver": {"num_latents": 4}}


def inputs(lengths: tuple[int, ...] = LENGTHS) -> tuple[list[Tensor], Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return [torch.randn(*mask.shape, D, dtype=torch.float64) for _ in range(L)], mask


def build(seed: int = 0, **options) -> Fusion:
    """In float64 and evaluation mode, with a boundary that is not zero."""
    torch.manual_seed(seed)
    fusion = Fusion(L, D, H, **options).double().eval()
    nn.init.normal_(fusion.boundary)
    return fusion


@pytest.fixture(autouse=True)
def own_entries_are_forgotten() -> Iterator[None]:
    before = [dict(registry._classes) for registry in (MIXERS, PROJECTORS)]
    yield
    for registry, classes in zip((MIXERS, PROJECTORS), before, strict=True):
        registry._classes.clear()
        registry._classes.update(classes)


# The span


@pytest.mark.parametrize("match_scale", [None, 0.13])
def test_boundary_follows_the_last_valid_position_and_zeros_follow_it(match_scale: float | None) -> None:
    fusion, (states, mask) = build(mixer="mean", match_scale=match_scale), inputs()
    span = fusion(states, mask)
    assert span.embeddings.shape == (len(LENGTHS), max(LENGTHS) + 1, H)
    for row, length in enumerate(LENGTHS):
        expected = torch.stack(states).mean(0)[row, :length] @ fusion.projector.map.weight.T + fusion.projector.map.bias
        if match_scale is not None:
            expected = expected / expected.pow(2).mean(-1, keepdim=True).sqrt() * match_scale
        torch.testing.assert_close(span.embeddings[row, :length], expected)
        assert torch.equal(span.embeddings[row, length], fusion.boundary)
        assert not span.embeddings[row, length + 1 :].any()
        assert span.mask[row].tolist() == [True] * (length + 1) + [False] * (max(LENGTHS) - length)


def test_boundary_follows_a_span_of_fixed_length() -> None:
    fusion, (states, mask) = build(projector="perceiver", projector_options={"num_latents": 4}), inputs()
    span = fusion(states, mask)
    assert span.embeddings.shape == (3, 5, H)
    assert span.mask.all()
    assert torch.equal(span.embeddings[:, 4], fusion.boundary.expand(3, H))


@pytest.mark.parametrize("projector", PROJECTOR_OPTIONS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_match_scale_gives_every_span_vector_the_lms_size(projector: str, size: float) -> None:
    fusion = build(projector=projector, projector_options=PROJECTOR_OPTIONS[projector], match_scale=0.13)
    with torch.no_grad():
        last = list(fusion.projector.modules())[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(size)
        last.bias.mul_(size)
    states, mask = inputs()
    span = fusion(states, mask)
    is_boundary = span.mask & ~nn.functional.pad(span.mask[:, 1:], (0, 1))
    sizes = span.embeddings.pow(2).mean(-1).sqrt()[span.mask & ~is_boundary]
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.13), rtol=1e-4, atol=0.0)


def test_without_match_scale_the_projectors_output_is_left_as_it_is() -> None:
    fusion, (states, mask) = build(mixer="last"), inputs((4,))
    expected = states[-1] @ fusion.projector.map.weight.T + fusion.projector.map.bias
    torch.testing.assert_close(fusion(states, mask).embeddings[:, :4], expected)


def test_boundary_start_values() -> None:
    assert not Fusion(L, D, H).boundary.any()
    torch.manual_seed(0)
    assert Fusion(2, 4, 4000, boundary="normal").boundary.std().item() == pytest.approx(1.0, rel=0.05)
    scaled = Fusion(2, 4, 4000, boundary="normal", match_scale=0.13).boundary
    assert scaled.std().item() == pytest.approx(0.13, rel=0.05)


@pytest.mark.parametrize("mixer", MIXER_NAMES)
@pytest.mark.parametrize("projector", PROJECTOR_OPTIONS)
def test_a_row_does_not_depend_on_its_batch_mates(mixer: str, projector: str) -> None:
    fusion = build(
        mixer=mixer,
        projector=projector,
        projector_options=PROJECTOR_OPTIONS[projector],
        layer_norm="rms",
        match_scale=0.13,
    )
    states, mask = inputs()
    together = fusion(states, mask)
    for row, length in enumerate(LENGTHS):
        alone = fusion([x[row : row + 1, :length] for x in states], mask[row : row + 1, :length])
        size = alone.embeddings.shape[1]
        torch.testing.assert_close(together.embeddings[row, :size], alone.embeddings[0], rtol=1e-10, atol=1e-12)
        assert together.mask[row].sum() == alone.mask.sum() == size


def test_everything_trained_gets_a_gradient() -> None:
    fusion, (states, mask) = build(layer_norm="layer", match_scale=0.13), inputs()
    fusion(states, mask).embeddings.pow(3).sum().backward()
    assert [name for name, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_half_precision_states_are_mixed_in_the_precision_of_the_weights() -> None:
    states, mask = inputs()
    fusion = build(layer_norm="rms").float()
    halves = [x.bfloat16() for x in states]
    span = fusion(halves, mask)
    assert span.embeddings.dtype == span.layer_weights.dtype == torch.float32
    torch.testing.assert_close(span.embeddings, fusion([x.float() for x in halves], mask).embeddings)


# Normalised layers


def test_layer_norms_are_the_plain_formulas() -> None:
    states, mask = inputs((4,))
    for layer_norm in ("none", "rms", "layer"):
        centred = states[-1] - states[-1].mean(-1, keepdim=True)
        plain = {
            "none": states[-1],
            "rms": states[-1] / states[-1].pow(2).mean(-1, keepdim=True).sqrt(),
            "layer": centred / centred.pow(2).mean(-1, keepdim=True).sqrt(),
        }
        mixed = build(mixer="last", layer_norm=layer_norm).mix(states, mask).mixed
        torch.testing.assert_close(mixed, plain[layer_norm], rtol=1e-4, atol=1e-6)


def test_growing_t5_like_states_are_even_only_after_normalisation() -> None:
    """The states of layer l point to axis l, ten times longer from layer to layer."""
    states = [torch.zeros(1, 1, D, dtype=torch.float64) for _ in range(L)]
    for layer, x in enumerate(states):
        x[..., layer] = 5.0 * 10.0**layer
    mask = torch.ones(1, 1, dtype=torch.bool)
    shares = {}
    for layer_norm in ("none", "rms", "layer"):
        mixed = build(mixer="mean", layer_norm=layer_norm).mix(states, mask).mixed[0, 0]
        shares[layer_norm] = (mixed[:L] / mixed[:L].sum()).tolist()
    assert shares["none"] == pytest.approx([1 / 111, 10 / 111, 100 / 111])
    assert shares["rms"] == pytest.approx([1 / 3] * 3, rel=1e-3)
    assert shares["layer"] == pytest.approx([1 / 3] * 3, rel=1e-3)


# Names and options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "global_sofmax"}, r"Expected a mixer out of .*Did you mean 'global_softmax'\?.*@register_mixer"),
        ({"projector": "percever"}, r"Expected a projector out of .*Did you mean 'perceiver'\?.*@register_projector"),
        ({"mixer_options": {"num_head": 2}}, r"options: num_heads, .*found 'num_head'\. Did you mean 'num_heads'"),
        ({"mixer": "last", "mixer_options": {"dropout": 0.1}}, r"'last' takes the options: none; found 'dropout'"),
        ({"mixer_options": {"hidden_size": 4}}, "found 'hidden_size'"),
        ({"projector": "perceiver", "projector_options": {"latents": 2}}, "Did you mean 'num_latents'"),
        ({"layer_norm": "rsm"}, r"layer_norm out of none, rms, layer; found 'rsm'\. Did you mean 'rms'\?"),
        ({"boundary": "zero"}, r"boundary out of zeros, normal; found 'zero'\. Did you mean 'zeros'\?"),
    ],
)
def test_unknown_names_and_options_are_refused_with_the_nearest(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fusion(L, D, H, **options)


def test_a_mixer_of_ones_own_takes_a_few_lines() -> None:
    @register_mixer("first_layers")
    class FirstLayers(Mixer):
        def __init__(self, num_layers: int, hidden_size: int, count: int, gain: float = 1.0):
            super().__init__(num_layers, hidden_size)
            self.count, self.gain = count, gain

        def forward(self, hidden_states, mask):
            weights = hidden_states[0].new_zeros(self.num_layers)
            weights[: self.count] = 1 / self.count
            mixed = sum(hidden_states[: self.count]) / self.count * self.gain
            return MixerOutput(mixed * mask.unsqueeze(-1), weights)

    assert "first_layers" in MIXERS
    states, mask = inputs()
    fusion = build(mixer="first_layers", mixer_options={"count": "2", "gain": 3})
    mixed, weights = fusion.mix(states, mask)
    torch.testing.assert_close(mixed, (states[0] + states[1]) * 1.5 * mask.unsqueeze(-1))
    assert weights.tolist() == [0.5, 0.5, 0.0]
    assert fusion(states, mask).embeddings.shape == (3, 6, H)

    with pytest.raises(ConfigError, match="'first_layers' needs the option 'count'; found none"):
        Fusion(L, D, H, mixer="first_layers")
    with pytest.raises(ConfigError, match=r"first_layers\.count: .*found 'two'"):
        Fusion(L, D, H, mixer="first_layers", mixer_options={"count": "two"})
    with pytest.raises(ConfigError, match="mixer name 'first_layers' is taken by FirstLayers"):
        register_mixer("first_layers")(FirstLayers)


def test_a_projector_of_ones_own_takes_a_few_lines() -> None:
    @register_projector("first_two")
    class FirstTwo(Projector):
        def forward(self, mixed, mask):
            return Projected(mixed[:, :2, : self.lm_size], mask.sum(1).clamp_max(2))

    states, mask = inputs((3, 1))
    fusion = build(mixer="last", projector="first_two")
    span = fusion(states, mask)
    assert span.mask.tolist() == [[True, True, True], [True, True, False]]
    assert torch.equal(span.embeddings[0, :2], states[-1][0, :2, :H])
    assert torch.equal(span.embeddings[1, 1], fusion.boundary)


def test_the_mixer_is_exact_under_mixed_precision() -> None:
    fusion = Fusion(4, 16, 8, mixer="transformer_softmax", layer_norm="rms")
    fusion.eval()  # without dropout
    states = [torch.randn(2, 5, 16) for _ in range(4)]
    mask = torch.ones(2, 5, dtype=torch.bool)

    def gradients(mixed: bool) -> list[torch.Tensor]:
        fusion.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = fusion.mix(states, mask)[0].square().sum()
        loss.backward()
        return [p.grad.clone() for p in fusion.mixer.parameters() if p.grad is not None]

    for exact, mixed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(exact, mixed)
