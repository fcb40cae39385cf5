"""Loading by folder, hub id or bundled name, and what is said when that fails."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glotfuse.backbones import BackboneOptions, load_encoder, load_lm
from glotfuse.backbones.bundled import store as bundled
from glotfuse.backbones.loading import resolve_device
from glotfuse.errors import BackboneError, ConfigError
from tiny import TEXTS, encoder_folder, lm_folder

CPU = BackboneOptions(device="cpu")
Load = Callable[..., Any]


@pytest.fixture(autouse=True)
def _cache_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    import huggingface_hub.constants
    import transformers.utils.hub

    for module in (huggingface_hub.constants, transformers.utils.hub):
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("load", [load_encoder, load_lm])
def test_a_missing_folder_or_model_is_named(load: Load, tmp_path: Path, offline_hub: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "nobody/nothing", "no such model!"):
        with pytest.raises(
            BackboneError, match="hub id, a local folder or one of bundled:e5-small, bundled:"
        ) as caught:
            load(name, CPU)
        assert repr(name) in str(caught.value)
        assert "nothing by that name is on this disk" in str(caught.value)


@pytest.mark.parametrize("load", [load_encoder, load_lm])
@pytest.mark.parametrize(
    "damage", ["empty", "no weights", "no tokenizer", "cut weights", "unknown type", "broken config"]
)
def test_a_folder_that_is_no_model_is_refused(load: Load, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(lm_folder("llama"), folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "unknown type":
        config.write_text(json.dumps({"model_type": "novel"}))
    else:
        config.write_text("{")
    with pytest.raises(BackboneError, match=r"found '.*model', a folder\. transformers says: \S+") as caught:
        load(str(folder), CPU)
    assert caught.value.__cause__ is not None


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for source, load, name in (
        (encoder_folder("bert"), load_encoder, "key.weight"),
        (lm_folder("gpt2"), load_lm, "c_fc.weight"),
    ):
        folder = tmp_path / name
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        gone = next(key for key in tensors if key.endswith(name))
        del tensors[gone]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BackboneError, match=f"found 1 missing, such as .*{name}"):
            load(str(folder), CPU)


def test_an_encoder_needs_neither_decoder_nor_pooler(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder("mt5"), folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith("decoder.")}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    whole, half = load_encoder(encoder_folder("mt5"), CPU), load_encoder(str(folder), CPU)
    ids = torch.tensor(whole.tokenize(TEXTS[:1]))
    assert torch.equal(half(ids, None)[-1], whole(ids, None)[-1])


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_dtype_options(dtype: str, expected: torch.dtype) -> None:
    options = BackboneOptions(device="cpu", dtype=dtype)
    for backbone in (load_encoder(encoder_folder("xlm-r"), options), load_lm(lm_folder("llama"), options)):
        assert {weights.dtype for weights in backbone.parameters()} == {expected}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_options(attention: str) -> None:
    options = BackboneOptions(device="cpu", attn_implementation=attention)
    assert load_encoder(encoder_folder("bert"), options).model.config._attn_implementation == attention
    assert load_lm(lm_folder("llama"), options).model.config._attn_implementation == attention


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="out of auto, float32, bfloat16, float16; found 'int8'"):
        load_lm(lm_folder("llama"), BackboneOptions(device="cpu", dtype="int8"))
    with pytest.raises(ConfigError, match=r"device of this machine .*; found 'tpu9'"):
        load_lm(lm_folder("llama"), BackboneOptions(device="tpu9"))
    with pytest.raises(BackboneError, match="flahs"):
        load_lm(lm_folder("llama"), BackboneOptions(device="cpu", attn_implementation="flahs"))


def test_the_automatic_device_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_bundled_names_are_resolved_to_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"bundled:e5-small": encoder_folder("bert"), "bundled:smollm2-135m": lm_folder("llama")}
    monkeypatch.setattr(bundled, "resolve", lambda name, **_: Path(folders[name]))
    for load, name in ((load_encoder, "bundled:e5-small"), (load_lm, "bundled:smollm2-135m")):
        identity, by_folder = load(name, CPU).identity, load(folders[name], CPU).identity
        assert identity.name == name  # what a checkpoint records is not a path on this machine
        assert identity.sha256 == by_folder.sha256


def test_a_hub_model_is_known_by_its_commit_and_blobs(offline_hub: Path) -> None:
    commit, digest = "c" * 40, "ab" * 32
    repo = offline_hub / "models--some--model"
    snapshot = repo / "snapshots" / commit
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(lm_folder("llama"), snapshot)
    (snapshot / "model.safetensors").rename(repo / "blobs" / digest)
    (snapshot / "model.safetensors").symlink_to(repo / "blobs" / digest)
    for revision in (None, commit):
        lm = load_lm("some/model", BackboneOptions(device="cpu", revision=revision))
        assert lm.identity.revision == commit
        assert lm.identity.sha256 == hashlib.sha256(f"model.safetensors:{digest}".encode()).hexdigest()


def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(lm_folder("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BackboneError, match="transformers says"):
        load_lm(str(folder), CPU)
    assert not (tmp_path / "ran").exists()
