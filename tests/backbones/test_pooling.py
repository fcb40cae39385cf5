"""Poolings: each mode is its plain formula, whichever side the padding is at, and the prefix counts where it should."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.pooling import MEAN, MODES, Dense, Pooling
from glotfuse.errors import BackboneError, ConfigError
from glotfuse.model.sentence_embeddings import sentence_embeddings
from tiny import TEXTS, tiny_encoder

LENGTHS, WIDTH = (3, 5, 1), 4
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda rows: rows[0],
    "max": lambda rows: torch.stack([column.max() for column in rows.unbind(1)]),
    "mean": lambda rows: sum(rows.unbind(0)) / len(rows),
    "mean_sqrt_len_tokens": lambda rows: sum(rows.unbind(0)) / len(rows) ** 0.5,
    "weightedmean": lambda rows: sum((i + 1) * row for i, row in enumerate(rows)) / sum(range(len(rows) + 1)),
    "lasttoken": lambda rows: rows[-1],
}


@pytest.fixture
def states() -> Tensor:
    return torch.randn(len(LENGTHS), max(LENGTHS), WIDTH, generator=torch.Generator().manual_seed(0)) - 3


def masks(side: str) -> Tensor:
    rows = [[True] * length + [False] * (max(LENGTHS) - length) for length in LENGTHS]
    return torch.tensor([row if side == "right" else row[::-1] for row in rows])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_its_formula(mode: str, side: str, states: Tensor) -> None:
    found = Pooling.named(mode)(states, masks(side))
    for row, own, real in zip(found, states, masks(side), strict=True):
        torch.testing.assert_close(row, FORMULAS[mode](own[real]))


def test_several_modes_are_side_by_side_and_linear_maps_come_last(states: Tensor) -> None:
    maps = (
        Dense(torch.randn(3, 2 * WIDTH), torch.randn(3), "Tanh", "a" * 64),
        Dense(torch.randn(6, 3), None, "Identity", "b" * 64),
    )
    pooling = Pooling(("cls", "mean"), dense=maps)
    assert pooling.size(WIDTH) == 6
    for row, own, length in zip(pooling(states, masks("right")), states, LENGTHS, strict=True):
        both = torch.cat([own[0], own[:length].mean(0)])
        expected = maps[1].weight @ torch.tanh(maps[0].weight @ both + maps[0].bias)
        torch.testing.assert_close(row, expected)
    with pytest.raises(
        BackboneError, match=r"linear map 1 .* take 10 values; found one that takes 8.*encoder\.pooling"
    ):
        pooling.size(5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_tokens_of_the_prefix_are_left_out_unless_there_is_nothing_else(side: str, states: Tensor) -> None:
    found = Pooling(include_prompt=False)(states, masks(side), 2)
    for row, own, real in zip(found, states, masks(side), strict=True):
        rest = own[real][2:] if real.sum() > 2 else own[real]
        torch.testing.assert_close(row, rest.mean(0))


def test_an_encoder_leaves_its_prefix_out_where_its_pooling_says_so() -> None:
    without = tiny_encoder("xlm-r", prefix="query: ", pooling=Pooling(include_prompt=False))
    before = without.tokenizer("query: ")["input_ids"][:-1]  # without </s>
    assert without.num_prefix_tokens == len(before) > 3
    ids = without.tokenize(TEXTS)
    for row, one in zip(sentence_embeddings(without, ids), ids, strict=True):
        rest = without(torch.tensor([one]), None)[-1][0, len(before) :].mean(0)
        torch.testing.assert_close(row, F.normalize(rest, dim=0))
    for other in (tiny_encoder("xlm-r", prefix="query: "), tiny_encoder("xlm-r", pooling=without.pooling)):
        assert other.num_prefix_tokens == 0


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"out of cls, max, mean, .*found 'lastoken'\. Did you mean 'lasttoken'"):
        tiny_encoder("xlm-r", pooling="lastoken")


def test_another_pooling_leaves_the_encoder_that_was_given_alone() -> None:
    encoder = tiny_encoder("bge-m3")
    ids = encoder.tokenize(TEXTS)
    before = sentence_embeddings(encoder, ids)
    other = encoder.with_pooling(Pooling())
    assert other.model is encoder.model
    assert other.pooling.to_dict() == MEAN
    assert (sentence_embeddings(other, ids) - before).abs().max() > 0.05
    assert torch.equal(sentence_embeddings(encoder, ids), before)


def test_last_tokens_without_an_end_token_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "glotfuse"):
        tiny_encoder("qwen3-embedding")
        tiny_encoder("xlm-r", pooling="lasttoken")
        assert "end token" not in caplog.text
        encoder = tiny_encoder("qwen3-embedding", pooling="mean")
        encoder.tokenizer.backend_tokenizer.post_processor = None
        type(encoder)(encoder.model, encoder.tokenizer, encoder.identity, pooling=Pooling.named("lasttoken"))
    assert "puts no end token after a text" in caplog.text
