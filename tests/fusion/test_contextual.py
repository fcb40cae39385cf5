"""The contextual projector: its start is the linear map, its vectors read each other, rows do not read their batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from glotfuse.errors import ConfigError
from glotfuse.fusion import MIXERS, PROJECTORS, Fusion
from glotfuse.fusion.contextual import ContextualProjector

WIDTH, SIZE = 12, 16
OPTIONS = {"attention_size": 8, "num_heads": 2, "feedforward_size": 6, "num_latents": 2}
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def projector(*, trained: bool = True, **options: object) -> ContextualProjector:
    torch.manual_seed(1)
    module = ContextualProjector(WIDTH, SIZE, **{**OPTIONS, **options}).double()  # type: ignore[arg-type]
    if trained:
        with torch.no_grad():
            for weights in module.parameters():
                weights.add_(0.3 * torch.randn_like(weights))
    return module


def states(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(len(lengths), max(lengths), WIDTH, dtype=torch.float64) * mask.unsqueeze(-1), mask


def test_it_starts_as_the_linear_map_alone() -> None:
    module = projector(trained=False)
    mixed, mask = states(5, 3)
    found = module(mixed, mask)
    expected = F.rms_norm(module.map(mixed), (SIZE,))
    torch.testing.assert_close(found.embeddings[:, 2:], expected, **TIGHT)
    assert found.lengths.tolist() == [7, 5]


def test_a_row_does_not_depend_on_its_batch() -> None:
    module = projector()
    mixed, mask = states(6, 2, 4)
    together = module(mixed, mask).embeddings
    for row, length in enumerate((6, 2, 4)):
        alone = module(mixed[row : row + 1, :length], mask[row : row + 1, :length]).embeddings
        torch.testing.assert_close(together[row : row + 1, : length + 2], alone, **TIGHT)


def test_vectors_read_each_other_and_their_order() -> None:
    module = projector()
    mixed, mask = states(4)
    plain = module(mixed, mask).embeddings
    changed = mixed.clone()
    changed[0, 3] += 1.0
    assert not torch.allclose(module(changed, mask).embeddings[0, 2], plain[0, 2])
    swapped = module(mixed[:, [1, 0, 2, 3]], mask).embeddings
    assert not torch.allclose(swapped[0, 4], plain[0, 4]), "the third token sees that the first two changed places"


def test_attention_equals_the_plain_computation() -> None:
    """Turned pairs, scores, softmax, one position after the other."""
    module = projector(feedforward_size=0, num_latents=1, num_heads=1, attention_size=4)
    mixed, mask = states(3)
    span = torch.cat([module.latents.expand(1, -1, -1), F.rms_norm(module.map(mixed), (SIZE,))], dim=1)[0]
    assert module.attention_in is not None
    assert module.attention_out is not None
    query, key, value = module.attention_in(F.rms_norm(span, (SIZE,))).chunk(3, dim=-1)

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        pairs = torch.complex(x[:2], x[2:])
        angles = torch.tensor([1.0, 1000.0**-0.5], dtype=torch.float64) * position
        spun = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([spun.real, spun.imag])

    rows = []
    for i in range(4):
        scores = torch.stack([turned(query[i], i) @ turned(key[j], j) / 2.0 for j in range(4)])
        rows.append(span[i] + module.attention_out(scores.softmax(0) @ value))
    torch.testing.assert_close(module(mixed, mask).embeddings[0], torch.stack(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 3])
def test_it_takes_over_a_linear_map_as_well_as_its_rank_allows(rank: int | None) -> None:
    module = projector(trained=False, rank=rank)
    torch.manual_seed(4)
    weight, bias = torch.randn(SIZE, WIDTH, dtype=torch.float64), torch.randn(SIZE, dtype=torch.float64)
    samples = torch.randn(500, WIDTH, dtype=torch.float64) * torch.linspace(0.1, 3.0, WIDTH)
    assert module.start_from(weight, bias, samples.T @ samples / len(samples))
    found = module.map(samples if module.reduce is None else module.reduce(samples))
    expected = samples @ weight.T + bias
    if rank is None:
        torch.testing.assert_close(found, expected, **TIGHT)
    else:
        best = torch.linalg.svdvals(expected - bias)[rank:].square().sum()
        assert float((found - expected).square().sum()) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 12}, "rank from 1 to 11"),
        ({"attention_size": 6, "num_heads": 2}, "multiple of twice num_heads"),
        ({"attention_size": 0}, "num_latents 0 without attention"),
        ({"feedforward_size": -1}, "at least 0"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PROJECTORS.build("contextual", {**OPTIONS, **options}, encoder_size=WIDTH, lm_size=SIZE)


def test_layers_side_by_side_reach_the_projector_with_a_map_each() -> None:
    torch.manual_seed(0)
    fusion = Fusion(4, 3, 5, mixer="concat", layers=[1, 3], match_scale=1.0).double()
    hidden = [torch.randn(2, 6, 3, dtype=torch.float64) for _ in range(4)]
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    span = fusion(hidden, mask)
    assert span.layer_weights.tolist() == [0.0, 0.5, 0.0, 0.5]
    weight = fusion.projector.map.weight
    expected = hidden[1] @ weight[:, :3].T + hidden[3] @ weight[:, 3:].T + fusion.projector.map.bias
    torch.testing.assert_close(span.embeddings[0, :6], F.rms_norm(expected[0], (5,)), **TIGHT)
    assert MIXERS.build("concat", {}, num_layers=2, hidden_size=3).output_size == 6
