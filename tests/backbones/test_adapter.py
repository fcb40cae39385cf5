"""LoRA on the LM: the given LM stays as it is, peft reads the files, and nothing but the adapter ever changes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")

from glotfuse.backbones import LM, add_adapter, merge_adapter
from glotfuse.backbones.identity import hash_module
from glotfuse.backbones.lora import ADAPTER_WEIGHTS, adapter_files, load_adapter
from glotfuse.errors import BackboneError, CheckpointError, ConfigError
from tiny import lm_folder, tiny_lm

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "opt")


def logits(lm: LM) -> torch.Tensor:
    embeds = lm.embed(torch.tensor([[5, 9, 7, 11], [6, 8, 12, 10]]))
    with torch.no_grad():
        return lm.run(embeds, torch.ones(embeds.shape[:2], dtype=torch.bool))


def shaken(lm: LM) -> LM:
    """The LM with an adapter that changes its logits."""
    assert lm.adapter is not None
    torch.manual_seed(1)
    for tensor in lm.adapter.tensors.values():
        tensor.data += 0.2 * torch.randn_like(tensor)
    return lm


@pytest.mark.parametrize("family", FAMILIES)
def test_the_given_lm_stays_as_it_is_and_shares_its_weights(family: str) -> None:
    lm = tiny_lm(family)
    before, expected = hash_module(lm), logits(lm)
    adapted = add_adapter(lm, rank=2)
    torch.testing.assert_close(logits(adapted), expected)  # a fresh adapter adds nothing
    shaken(adapted)
    assert (logits(adapted) - expected).abs().max() > 1e-2
    assert hash_module(lm) == before
    assert torch.equal(logits(lm), expected)
    own = {id(p) for p in lm.parameters()}
    others = [(name, p) for name, p in adapted.named_parameters() if id(p) not in own]
    assert all(".lora_" in name and p.dtype == torch.float32 and p.requires_grad for name, p in others)
    assert not any(p.requires_grad for p in lm.parameters())
    assert adapted.embedding_rms == lm.embedding_rms


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_itself_reads_the_files_and_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = shaken(add_adapter(tiny_lm(family), rank=3, alpha=5.0))
    for name, content in adapter_files(adapted).items():
        (tmp_path / name).write_bytes(content)
    plain = AutoModelForCausalLM.from_pretrained(lm_folder(family))
    theirs = PeftModel.from_pretrained(plain, tmp_path).eval()
    ids = torch.tensor([[5, 9, 7, 11], [6, 8, 12, 10]])
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits.float().flatten(0, 1)
    torch.testing.assert_close(logits(adapted), expected, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_gives_the_same_logits_and_is_fixed() -> None:
    lm = tiny_lm()
    adapted = shaken(add_adapter(lm, rank=2, dropout=0.5, target_modules=["q_proj", "down_proj"]))
    loaded = load_adapter(lm, adapter_files(adapted), "here").train()
    assert torch.equal(logits(loaded), logits(adapted.eval()))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(module.training for module in loaded.modules())
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in loaded.adapter.tensors} == {"q_proj", "down_proj"}


def test_only_the_adapter_s_dropout_is_ever_in_training_mode() -> None:
    adapted = shaken(add_adapter(tiny_lm(), rank=2, dropout=0.5))
    adapted.train()
    names = {name for name, module in adapted.named_modules() if module.training}
    assert names
    assert all(".lora_dropout." in name for name in names)
    assert not torch.equal(logits(adapted), logits(adapted))
    adapted.eval()
    assert torch.equal(logits(adapted), logits(adapted))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_or_not_the_logits_are_equal(family: str) -> None:
    lm = tiny_lm(family)
    before = hash_module(lm)
    adapted = shaken(add_adapter(lm, rank=2))
    merged = merge_adapter(adapted)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert merged.adapter is None
    assert not any("lora" in name for name, _ in merged.named_modules())
    assert hash_module(lm) == before


def test_half_precision_weights_keep_an_adapter_in_float32() -> None:
    adapted = shaken(add_adapter(tiny_lm(dtype="bfloat16"), rank=2))
    assert {p.dtype for p in adapted.adapter.tensors.values()} == {torch.float32}
    assert adapted.dtype == torch.bfloat16
    reference = add_adapter(tiny_lm(), rank=2)
    reference.adapter.load(adapted.adapter.tensors)
    expected = logits(reference)
    assert (logits(adapted) - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert (logits(tiny_lm(dtype="bfloat16")) - expected).abs().mean() > 0.2 * expected.abs().mean()


def test_without_peft_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'glotfuse\[lora\]'"):
        add_adapter(tiny_lm())


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(BackboneError, match=r"wrong_proj.*adapter\.target_modules"):
        add_adapter(tiny_lm(), target_modules=["wrong_proj"])


def test_two_adapters_are_refused() -> None:
    with pytest.raises(BackboneError, match="without an adapter"):
        add_adapter(add_adapter(tiny_lm()))


def test_an_adapter_of_another_lm_is_refused() -> None:
    files: dict[str, Any] = adapter_files(add_adapter(tiny_lm("qwen3"), rank=2))
    other = adapter_files(add_adapter(tiny_lm("qwen3"), rank=4))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_adapter(tiny_lm("qwen3"), {**files, ADAPTER_WEIGHTS: other[ADAPTER_WEIGHTS]}, "here")
    with pytest.raises(CheckpointError, match="peft's format in here"):
        load_adapter(tiny_lm("qwen3"), {**files, ADAPTER_WEIGHTS: b"torn"}, "here")


def test_equal_adapters_have_equal_files() -> None:
    first, second = (adapter_files(add_adapter(tiny_lm(), rank=2, seed=3)) for _ in range(2))
    assert first == second
    assert adapter_files(add_adapter(tiny_lm(), rank=2, seed=4)) != first
    assert json.loads(first["adapter_config.json"])["peft_type"] == "LORA"
