"""A GGUF file as the LM: the same model as its source, known by the file's own hash."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from built import TASK, scores
from gguf_writer import write_llama
from glotfuse.api import FusedLM
from glotfuse.backbones import BackboneOptions, load_encoder, load_lm
from glotfuse.errors import BackboneError, CheckpointError, ConfigError
from tiny import SENTENCES, tiny_encoder
from tiny_models import LMS

CPU = BackboneOptions(device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A tiny Llama, its tokenizer, and both in a GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    LMS["gpt2"][1](folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    model = LMS["llama"][0](len(tokenizer)).eval()
    path = folder / "files" / "tiny.gguf"
    path.parent.mkdir()
    write_llama(path, model, tokenizer)
    return model, tokenizer, path


def test_a_gguf_file_is_the_model_it_was_written_from(source: tuple[Any, Any, Path]) -> None:
    model, tokenizer, path = source
    lm = load_lm(str(path), CPU)
    for text in SENTENCES[:3]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert lm.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        with torch.no_grad():
            expected, found = (m(input_ids=torch.tensor([ids])).logits for m in (model, lm.model))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert lm.identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert lm.dtype == torch.float32
    assert not hasattr(lm.model.config, "quantization_config")


def test_a_file_in_a_folder_is_named_apart_and_found_again_from_a_checkpoint(
    source: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    from glotfuse.model.assembly import build_model
    from glotfuse.recipes.config import FusionConfig, PromptConfig

    path = source[2]
    lm = load_lm(str(path.parent), BackboneOptions(device="cpu", gguf_file=path.name))
    assert (lm.identity.name, lm.identity.gguf_file) == (str(path.parent), path.name)
    model = build_model(
        FusedLM, tiny_encoder(), lm, fusion=FusionConfig(), prompt=PromptConfig(style="plain"), **TASK
    ).eval()
    model.save_pretrained(tmp_path / "run")
    loaded = FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    assert torch.equal(scores(loaded), scores(model))
    moved = shutil.copy(path, tmp_path / "moved.gguf")
    assert torch.equal(scores(FusedLM.from_pretrained(tmp_path / "run", lm=str(moved), device="cpu")), scores(model))
    other = tmp_path / "other.gguf"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    other.write_bytes(content)
    with pytest.raises(CheckpointError, match="Expected the lm that"):
        FusedLM.from_pretrained(tmp_path / "run", lm=str(other), device="cpu")


def test_a_gguf_model_moves_and_casts_like_any_other(source: tuple[Any, Any, Path]) -> None:
    lm = load_lm(str(source[2]), BackboneOptions(device="cpu", dtype="bfloat16"))
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in lm.to(torch.float32).parameters()} == {torch.float32}


def test_what_is_no_gguf_file_is_a_clear_error(source: tuple[Any, Any, Path], tmp_path: Path) -> None:
    path = source[2]
    with pytest.raises(BackboneError, match=r"Expected a GGUF file at .*nowhere\.gguf"):
        load_lm(str(tmp_path / "nowhere.gguf"), CPU)
    with pytest.raises(BackboneError, match=r"Expected 'x.gguf' in the folder .* found tiny.gguf"):
        load_lm(str(path.parent), BackboneOptions(device="cpu", gguf_file="x.gguf"))
    with pytest.raises(ConfigError, match="Expected one GGUF file"):
        load_lm(str(path), BackboneOptions(device="cpu", gguf_file="x.gguf"))
    with pytest.raises(ConfigError, match="whose weights are unpacked; found 'torchao-int8'"):
        load_lm(str(path), BackboneOptions(device="cpu", quantization="torchao-int8"))
    with pytest.raises(ConfigError, match="for the LM alone"):
        load_encoder(str(path), CPU)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BackboneError, match=r"in a GGUF file .* a file\. transformers says: \S+"):
        load_lm(str(broken), CPU)
