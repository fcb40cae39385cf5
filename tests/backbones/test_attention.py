"""Attention kernels that are not here, or take no masks: said plainly, and no slower than need be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from glotfuse.backbones import BackboneOptions, load_encoder, load_lm
from glotfuse.backbones.attention import check_attention
from glotfuse.errors import BackboneError, ConfigError
from tiny import TEXTS, encoder_folder, lm_folder, tiny_lm, tiny_model

LABELS = ["science", "science fiction", "politics"]


def flash(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """What FlashAttention computes and what it refuses: causal, with a mask for padding alone."""
    if mask is not None and mask.ndim == 4:
        raise RuntimeError("expected a mask of two dimensions")
    seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    allowed = seen[None, None] if mask is None else seen[None, None] & mask[:, None, None, :].bool()
    return sdpa_attention_forward(module, query, key, value, allowed, **options)


@pytest.fixture
def _flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)


@pytest.mark.usefixtures("_flash")
def test_labels_are_read_as_a_tree_with_a_kernel_that_takes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny_model("xlm-r", "llama").classify(TEXTS, labels=LABELS)
    model = tiny_model("xlm-r", "llama")
    config = model.lm.model.config
    monkeypatch.setattr(config, "_attn_implementation", "flash_attention_2")
    found = model.classify(TEXTS, labels=LABELS)
    assert config._attn_implementation == "flash_attention_2"
    with monkeypatch.context() as patch:
        patch.setattr("glotfuse.model.scoring._Question.one_by_one", lambda _: pytest.fail("not as a tree"))
        patch.setattr("glotfuse.model.scoring._Question.tree_is_right", lambda *_: True)
        assert model.classify(TEXTS, labels=LABELS) == found
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


@pytest.mark.parametrize("load", [load_encoder, load_lm])
@pytest.mark.parametrize("kernel", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_on_a_cpu_is_refused_at_once(load: Any, kernel: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected a CUDA device for attn_implementation .*flash.*set sdpa or eager"):
        load("nowhere/at-all", BackboneOptions(device="cpu", attn_implementation=kernel))


def test_flash_attention_needs_half_precision() -> None:
    cuda = torch.device("cuda")
    check_attention("a causal LM", "x", "flash_attention_2", torch.bfloat16, cuda)
    check_attention("a causal LM", "x", "flash_attention_2", "auto", cuda)
    with pytest.raises(ConfigError, match=r"bfloat16 or float16 with attn_implementation .* found float32"):
        check_attention("a causal LM", "x", "flash_attention_2", torch.float32, cuda)


@pytest.mark.parametrize(
    ("load", "folder"), [(load_lm, lambda: lm_folder("llama")), (load_encoder, lambda: encoder_folder("mt5"))]
)
@pytest.mark.parametrize("kernel", ["flahs", "flash_attention_2"])
def test_a_kernel_that_is_not_here_is_named_and_not_the_model(load: Any, folder: Any, kernel: str) -> None:
    options = BackboneOptions(device="cpu", attn_implementation=kernel, device_map={"": "cpu"}, dtype="bfloat16")
    with pytest.raises(BackboneError, match=f"Expected an attn_implementation that .* found {kernel!r}: ") as caught:
        load(folder(), options)
    assert "hub id" not in str(caught.value)


def test_an_lm_that_cannot_run_says_so_and_blames_no_version(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = tiny_lm("llama")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("FlashAttention only supports fp16 and bf16\nat line 7")

    monkeypatch.setattr(lm.model, "forward", fail)
    with pytest.raises(
        BackboneError, match=r"runs on cpu .* which fails: FlashAttention only supports fp16 and bf16\. Try"
    ):
        type(lm)(lm.model, lm.tokenizer, lm.identity)
    assert "transformers" not in caplog.text
