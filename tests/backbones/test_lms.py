"""LMs of all kinds: what they read, where logits are computed, and what is refused."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glotfuse.backbones import LM, BackboneOptions, load_lm
from glotfuse.errors import BackboneError
from tiny import LMS, TEXTS, encoder_folder, lm_folder, tiny_lm

POSITIONS_ADDED = ("opt", "gpt2")
"""LMs that add position embeddings before the first block."""
OTHER_BEFORE_FIRST_BLOCK = (*POSITIONS_ADDED, "bloom")
"""And one with a norm there."""


@pytest.fixture(scope="module", params=LMS)
def lm(request: pytest.FixtureRequest) -> LM:
    return tiny_lm(request.param)


def family_of(lm: LM) -> str:
    return next(family for family in LMS if lm_folder(family) == lm.identity.name)


def rows(lm: LM) -> tuple[Tensor, Tensor]:
    """Right-padded ids of texts and their mask."""
    tokenized = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    longest = max(map(len, tokenized))
    ids = torch.tensor([row + [7] * (longest - len(row)) for row in tokenized])
    return ids, torch.tensor([[i < len(row) for i in range(longest)] for row in tokenized])


def rms(x: Tensor) -> float:
    return float(x.float().pow(2).mean().sqrt())


def received_by_first_block(lm: LM, **inputs: Tensor) -> Tensor:
    lists = [m for m in lm.model.modules() if isinstance(m, nn.ModuleList) and len(m) >= 2]
    received: list[Tensor] = []

    def record(_: nn.Module, args: Any, kwargs: Any) -> None:
        received.append(args[0] if args else kwargs["hidden_states"])

    hook = lists[0][0].register_forward_pre_hook(record, with_kwargs=True)
    with torch.no_grad():
        lm.model(**inputs)
    hook.remove()
    return received[0]


def test_embedding_rms_is_that_of_what_the_first_block_receives(lm: LM) -> None:
    special = set(lm.tokenizer.all_special_ids)
    ids = torch.tensor([[i for i in range(len(lm.tokenizer)) if i not in special]])
    received = received_by_first_block(lm, input_ids=ids)
    if family_of(lm) not in OTHER_BEFORE_FIRST_BLOCK:
        assert lm.embedding_rms == pytest.approx(rms(received), rel=1e-4)
    generator = torch.Generator().manual_seed(0)
    span = torch.randn(1, ids.shape[1], lm.embedding_size, generator=generator)
    span *= lm.embedding_rms / span.pow(2).mean(-1, keepdim=True).sqrt()
    assert rms(received_by_first_block(lm, inputs_embeds=span)) == pytest.approx(rms(received), rel=0.05)


def test_gemma_scales_its_embeddings_and_the_rms_counts_it() -> None:
    for family in ("gemma", "gemma2", "gemma3"):
        lm = tiny_lm(family)
        table = rms(lm.model.get_input_embeddings().weight)
        assert lm.embedding_rms == pytest.approx(table * 32**0.5, rel=0.05)


@torch.no_grad()
def test_embeddings_read_as_tokens_do(lm: LM) -> None:
    ids, _ = rows(lm)
    found = lm.run(lm.embed(ids), torch.ones_like(ids, dtype=torch.bool))
    expected = lm.model(input_ids=ids).logits.flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert lm.embed(ids).shape == (*ids.shape, lm.embedding_size)
    assert expected.std(0).mean() > 0.1  # these models do tell inputs apart


@torch.no_grad()
def test_kept_positions_have_the_plain_logits(lm: LM) -> None:
    ids, mask = rows(lm)
    keep = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.4)
    keep[1] = False  # a row may have none
    found = lm.run(lm.embed(ids), keep)
    expected = torch.cat(
        [
            lm.model(input_ids=row[None, : int(real.sum())]).logits[0][kept[: int(real.sum())]]
            for row, real, kept in zip(ids, mask, keep, strict=True)
        ]
    )
    assert lm.selects_logits
    assert found.shape == (int(keep.sum()), len(lm.tokenizer))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_gemma2_logits_are_capped_by_the_model_itself() -> None:
    lm = tiny_lm("gemma2")
    ids, mask = rows(lm)
    capped = lm.run(lm.embed(ids), mask)
    lm.model.config.final_logit_softcapping = None
    raw = lm.run(lm.embed(ids), mask)
    torch.testing.assert_close(capped, 4.0 * torch.tanh(raw / 4.0), atol=1e-5, rtol=0)
    assert (capped - raw).abs().max() > 0.5


def test_the_output_layer_runs_at_kept_positions_only() -> None:
    lm = tiny_lm("llama")
    ids, mask = rows(lm)
    shapes: list[torch.Size] = []
    lm.model.lm_head.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    lm.run(lm.embed(ids), mask & (torch.arange(mask.shape[1]) == 0))
    assert shapes == [(len(TEXTS), 32)]


@torch.no_grad()
def test_an_lm_that_cannot_select_computes_all_logits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaForCausalLM

    plain, original = tiny_lm("llama"), LlamaForCausalLM.forward
    ids, mask = rows(plain)
    expected = plain.run(plain.embed(ids), mask)

    def older(self: Any, *args: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:  # transformers 5.20
        output = original(self, *args, **kwargs)
        output.logits = output.logits[
            :, slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep, :
        ]
        return output

    def without(
        self: Any, input_ids: Any = None, inputs_embeds: Any = None, use_cache: Any = None, **kwargs: Any
    ) -> Any:
        return original(self, input_ids=input_ids, inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs)

    for forward in (older, without):
        monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
        with caplog.at_level(logging.WARNING):
            lm = tiny_lm("llama")
        assert not lm.selects_logits
        torch.testing.assert_close(lm.run(lm.embed(ids), mask), expected, atol=1e-5, rtol=0)
    assert "computes logits at all positions" in caplog.text


def test_it_is_checked_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    passes: list[int] = []
    original = LlamaForCausalLM.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return original(self, *args, **kwargs)

    counted.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    assert tiny_lm("llama").selects_logits
    assert len(passes) == 2


def test_it_stays_in_evaluation_mode_and_its_weights_take_no_gradient(lm: LM) -> None:
    lm.train()
    nn.Sequential(lm).train()
    assert not any(module.training for module in lm.modules())
    assert not any(weights.requires_grad for weights in lm.parameters())
    ids, mask = rows(lm)
    embeds = lm.embed(ids).requires_grad_()
    first, second = lm.run(embeds, mask), lm.run(embeds, mask)
    assert torch.equal(first, second)  # no dropout
    first.sum().backward()
    assert embeds.grad is not None
    assert embeds.grad.abs().max() > 0
    assert all(weights.grad is None for weights in lm.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "mistral-short", "gpt2"])
@torch.no_grad()
def test_attention_implementation_is_honoured(family: str, attention: str) -> None:
    default, lm = tiny_lm(family), tiny_lm(family, attn_implementation=attention)
    assert lm.model.config._attn_implementation == attention
    ids, mask = rows(lm)
    expected = default.run(default.embed(ids), mask)
    torch.testing.assert_close(lm.run(lm.embed(ids), mask), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "gpt2"])
@torch.no_grad()
def test_half_precision_is_honoured(family: str) -> None:
    full, half = tiny_lm(family), tiny_lm(family, dtype="bfloat16")
    assert full.dtype == torch.float32
    assert half.dtype == half.embed(torch.tensor([5])).dtype == torch.bfloat16
    assert half.embedding_rms == pytest.approx(full.embedding_rms, rel=0.01)
    ids, mask = rows(full)
    logits, expected = half.run(half.embed(ids).float(), mask), full.run(full.embed(ids), mask)
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() < 0.1 * expected.norm()


def test_a_model_that_is_not_causal_is_refused() -> None:
    for family in ("bert", "xlm-r"):
        with pytest.raises(BackboneError, match=r"Expected a causal LM; found \w+ in .*later tokens change earlier"):
            load_lm(encoder_folder(family), BackboneOptions(device="cpu"))


def test_an_encoder_decoder_model_is_refused() -> None:
    with pytest.raises(BackboneError, match="Expected a causal LM; found the encoder-decoder model MT5Config"):
        load_lm(encoder_folder("mt5"), BackboneOptions(device="cpu"))


def test_an_lm_that_reads_embeddings_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    original = LlamaForCausalLM.forward

    def scaled(self: Any, *args: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        if inputs_embeds is not None:
            inputs_embeds = inputs_embeds.flip(-1)
        return original(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    scaled.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(BackboneError, match="reads embeddings as it reads tokens; found LlamaForCausalLM"):
        tiny_lm("llama")


def test_an_lm_without_its_output_layer_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(lm_folder("llama")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(lm_folder("llama")).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"found 1 missing, such as lm_head.weight"):
        load_lm(str(tmp_path), BackboneOptions(device="cpu"))
