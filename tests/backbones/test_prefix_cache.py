"""Keys and values of the prompt head: the same logits as the head itself, and nothing leaks between batches."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from glotfuse.backbones import LM, PrefixCache
from glotfuse.backbones.prefix_cache import continued
from tiny import LMS, tiny_lm

RECURRENT = ("mamba", "falcon-h1")
CACHEABLE = [family for family in LMS if family not in RECURRENT]
HEAD = [5, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70]


@pytest.fixture(scope="module", params=CACHEABLE)
def lm(request: pytest.FixtureRequest) -> LM:
    return tiny_lm(request.param)


def some_embeddings(lm: LM, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, lm.embedding_size, generator=generator) * lm.embedding_rms


def with_head(lm: LM, embeds: Tensor) -> Tensor:
    return torch.cat([lm.embed(torch.tensor([HEAD])).expand(len(embeds), -1, -1), embeds], dim=1)


def plain_logits(lm: LM, embeds: Tensor) -> Tensor:
    """All logits (B,M,V), from the model itself."""
    logits: Tensor = lm.model(inputs_embeds=embeds, use_cache=False).logits
    return logits


def test_a_cached_head_gives_the_logits_and_gradients_of_the_head(lm: LM) -> None:
    prefix = lm.cache_prefix(HEAD)
    assert prefix is not None
    assert prefix.length == len(HEAD)
    for seed, num_rows, width in ((0, 3, 9), (1, 3, 5), (2, 1, 14)):  # batches leave nothing behind
        embeds = some_embeddings(lm, num_rows, width, seed=seed)
        keep = torch.rand(num_rows, width, generator=torch.Generator().manual_seed(seed)) < 0.5
        cached, plain = embeds.clone().requires_grad_(), embeds.clone().requires_grad_()
        found = lm.run(cached, keep, cache=prefix.expand(num_rows), start=prefix.length)
        expected = plain_logits(lm, with_head(lm, plain))[:, len(HEAD) :][keep]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed))
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(cached.grad, plain.grad, atol=1e-3, rtol=1e-3)
        assert not any(x.requires_grad for layer in prefix.layers for x in layer)


@torch.no_grad()
def test_a_padded_batch_can_be_continued(lm: LM) -> None:
    prefix = lm.cache_prefix(HEAD)
    assert prefix is not None
    lengths = torch.tensor([9, 3, 6])
    embeds, more = some_embeddings(lm, 3, 9), some_embeddings(lm, 6, 4, seed=1)
    mask = torch.arange(9) < lengths.unsqueeze(1)
    cache = prefix.expand(3)
    lm.run(embeds, mask, cache=cache, start=prefix.length)

    seen = torch.cat([torch.ones(3, len(HEAD), dtype=torch.bool), mask], dim=1)
    order = torch.stack([torch.cat([(~row).nonzero()[:, 0], row.nonzero()[:, 0]]) for row in seen])
    start = (len(HEAD) + lengths).repeat_interleave(2)
    found = lm.run(
        more,
        torch.ones(6, 4, dtype=torch.bool),
        cache=continued(cache, order, 2),
        attention_mask=torch.cat([seen.take_along_dim(order, 1).repeat_interleave(2, 0).long(), torch.ones(6, 4)], 1),
        position_ids=start.unsqueeze(1) + torch.arange(4),
    ).view(6, 4, -1)
    for row in range(6):
        alone = torch.cat([embeds[row // 2, : lengths[row // 2]], more[row]]).unsqueeze(0)
        expected = plain_logits(lm, with_head(lm, alone))[0, -4:]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", RECURRENT)
def test_an_lm_with_recurrent_states_is_not_cached_and_says_so(family: str, caplog: pytest.LogCaptureFixture) -> None:
    lm = tiny_lm(family)
    with caplog.at_level(logging.WARNING):
        assert lm.cache_prefix(HEAD) is None
    assert f"Prompt head not cached, but read anew in every batch: {type(lm.model).__name__}" in caplog.text


def test_a_cache_that_gives_other_logits_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = tiny_lm("llama")
    original = PrefixCache.compute

    def wrong(*args: object) -> PrefixCache:
        layers = original(*args).layers  # type: ignore[arg-type]
        return PrefixCache([(keys, values.roll(1, dims=2)) for keys, values in layers])

    monkeypatch.setattr(PrefixCache, "compute", wrong)
    with caplog.at_level(logging.WARNING):
        assert lm.cache_prefix(HEAD) is None
    assert "gives logits that differ by" in caplog.text


def test_a_head_cached_for_inference_serves_training() -> None:
    lm = tiny_lm("llama")
    with torch.inference_mode():
        prefix = lm.cache_prefix(HEAD)
    assert prefix is not None
    embeds = some_embeddings(lm, 2, 4).requires_grad_()
    keep = torch.ones(2, 4, dtype=torch.bool)
    lm.run(embeds, keep, cache=prefix.expand(2), start=prefix.length).sum().backward()
    assert embeds.grad is not None
