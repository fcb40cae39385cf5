"""The hash of a backbone's weights: of its files, whatever they are loaded as, read only where they have to be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from glotfuse.backbones import BackboneIdentity, identity
from glotfuse.backbones.identity import hash_folder, hash_module
from tiny import encoder_folder, lm_folder, tiny_encoder, tiny_lm


@pytest.fixture(autouse=True)
def _cache_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "cache"))


def test_the_hash_does_not_depend_on_the_dtype_loaded() -> None:
    full, half = tiny_lm("llama"), tiny_lm("llama", dtype="bfloat16")
    assert full.identity == half.identity
    assert len(full.identity.sha256) == 64
    assert tiny_encoder("mt5").identity == tiny_encoder("mt5", dtype="float16").identity


def test_the_hash_differs_for_other_weights(tmp_path: Path) -> None:
    assert hash_folder(Path(lm_folder("llama"))) != hash_folder(Path(lm_folder("llama", seed=6)))
    copy = tmp_path / "copy"
    shutil.copytree(lm_folder("llama"), copy)
    assert hash_folder(copy) == hash_folder(Path(lm_folder("llama")))  # the same weights at another place
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert hash_folder(copy) != hash_folder(Path(lm_folder("llama")))


def test_the_hash_is_over_all_shards_by_name(tmp_path: Path) -> None:
    contents = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "pytorch_model.bin").write_bytes(b"the same in another format")
    lines = "\n".join(f"{name}:{hashlib.sha256(content).hexdigest()}" for name, content in contents.items())
    assert hash_folder(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_folder_without_weights_has_no_hash(tmp_path: Path) -> None:
    assert hash_folder(tmp_path) is None


def test_a_blob_of_the_hub_cache_is_not_read(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4  # not the hash of the content, so that reading it would show
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / digest).write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    expected = hashlib.sha256(f"model.safetensors:{digest}".encode()).hexdigest()
    assert hash_folder(snapshot) == expected


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, weights = tmp_path / "memory" / "hashes.json", tmp_path / "model.safetensors"
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    weights.write_bytes(b"one")
    first = hash_folder(tmp_path, memory)
    assert list(json.loads(memory.read_text()).values()) == [hashlib.sha256(b"one").hexdigest()]
    with monkeypatch.context() as patch:
        patch.setattr(identity.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert hash_folder(tmp_path, memory) == first
    weights.write_bytes(b"two")
    os.utime(weights, ns=(1, 1))
    assert hash_folder(tmp_path, memory) == hash_folder(tmp_path) != first


def test_a_file_whose_date_was_set_back_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, weights = tmp_path / "memory" / "hashes.json", tmp_path / "model.safetensors"
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    weights.write_bytes(b"one")
    first, date = hash_folder(tmp_path, memory), weights.stat().st_mtime_ns
    time.sleep(0.05)  # file systems count time in steps
    weights.write_bytes(b"two")  # of the same size, in the same inode
    os.utime(weights, ns=(date, date))
    assert weights.stat().st_mtime_ns == date
    assert hash_folder(tmp_path, memory) == hash_folder(tmp_path) != first
    assert len(json.loads(memory.read_text())) == 1  # what the file was before is forgotten


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "hashes.json"
    (tmp_path / "model.safetensors").write_bytes(b"one")
    assert hash_folder(tmp_path, memory) == hash_folder(tmp_path)
    assert not memory.exists()


@pytest.mark.parametrize("content", ["{broken", "[1, 2]", '"text"'])
def test_a_damaged_memory_does_no_harm(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "hashes.json"
    memory.write_text(content)
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    (tmp_path / "model.safetensors").write_bytes(b"one")
    assert hash_folder(tmp_path, memory) == hash_folder(tmp_path)


def test_a_memory_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    (tmp_path / "file").write_text("")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    assert hash_folder(tmp_path, tmp_path / "file" / "hashes.json") == hash_folder(tmp_path)


def test_a_module_is_hashed_over_names_shapes_and_values() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = hash_module(module)
    assert hash_module(module) == first
    with torch.no_grad():
        module[0].bias[1] += 1e-6
    assert hash_module(module) != first
    assert hash_module(nn.Linear(1, 4, bias=False).bfloat16()) != hash_module(nn.Linear(4, 1, bias=False).bfloat16())


def test_an_identity_survives_json() -> None:
    found = tiny_encoder("mt5").identity
    assert BackboneIdentity.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.name == encoder_folder("mt5")
    assert found.revision is None
    assert found.architecture == "MT5Stack"
    assert found.hidden_size == 24
