"""Checkpoints: a round trip changes no logit; damage, other backbones and full disks are clear errors."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from built import TASK, built, scores
from glotfuse import files
from glotfuse.api import FusedLM
from glotfuse.backbones import BackboneOptions, load_encoder
from glotfuse.errors import CheckpointError
from glotfuse.model.assembly import build_model
from glotfuse.recipes.config import FusionConfig, PromptConfig
from tiny import TEXTS, byte_encoder_folder, encoder_folder, lm_folder, tiny_lm


@pytest.fixture
def saved(tmp_path: Path) -> tuple[FusedLM, Path]:
    model = built()
    model.save_pretrained(tmp_path / "run")
    return model, tmp_path / "run"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixer": "global_softmax", "mixer_options": {"temperature": 3.0}},
        {"mixer": "last", "projector": "mlp", "match_scale": False, "boundary": "normal"},
        {"mixer": "mean", "projector": "perceiver", "projector_options": {"num_latents": 3, "num_heads": 2}},
        {"layer_norm": "rms", "prompt": {"style": "plain", "tail": "Topic: "}},
        {"prompt": {"include_text": True}},
    ],
    ids=lambda o: "-".join(map(str, o)) or "default",
)
def test_round_trip_gives_identical_logits(tmp_path: Path, options: dict[str, Any]) -> None:
    model = built(**options)
    model.save_pretrained(tmp_path)
    loaded = FusedLM.from_pretrained(tmp_path, device="cpu")
    assert not loaded.training
    assert torch.equal(scores(loaded), scores(model))
    assert loaded.generate(TEXTS[:2], max_new_tokens=5) == model.generate(TEXTS[:2], max_new_tokens=5)


def test_only_trained_parts_are_saved_and_nothing_is_pickled(saved: tuple[FusedLM, Path]) -> None:
    model, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "fusion.safetensors"]
    size = sum(p.numel() * p.element_size() for p in model.fusion.parameters())
    assert (folder / "fusion.safetensors").stat().st_size < size + 8192


def test_config_names_the_backbones(saved: tuple[FusedLM, Path]) -> None:
    model, folder = saved
    config = json.loads((folder / "config.json").read_text("utf8"))
    assert config["encoder"]["name"] == encoder_folder("xlm-r")
    assert len(config["lm"]["sha256"]) == 64
    assert config["encoder"]["sha256"] == model.encoder.identity.sha256


def test_another_encoder_is_refused(saved: tuple[FusedLM, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"Expected the encoder that .*XLMRobertaModel.*found .*BertModel"):
        FusedLM.from_pretrained(saved[1], encoder=encoder_folder("bert"), device="cpu")


def test_same_architecture_with_other_weights_is_refused(saved: tuple[FusedLM, Path]) -> None:
    with pytest.raises(CheckpointError, match="Expected the lm"):
        FusedLM.from_pretrained(saved[1], lm=lm_folder("llama", seed=6), device="cpu")


@pytest.fixture
def over_bytes(tmp_path: Path) -> tuple[FusedLM, Path]:
    """Of an encoder that reads unknown characters as bytes."""
    encoder = load_encoder(byte_encoder_folder(), BackboneOptions(device="cpu"))
    model = build_model(FusedLM, encoder, tiny_lm(), fusion=FusionConfig(), prompt=PromptConfig(), **TASK).eval()
    model.save_pretrained(tmp_path / "bytes")
    return model, tmp_path / "bytes"


def without_record(folder: Path) -> Path:
    """The checkpoint as it was before byte fallback was recorded."""
    config = json.loads((folder / "config.json").read_text("utf8"))
    del config["encoder"]["byte_fallback"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_byte_fallback_is_recorded_and_used_again(over_bytes: tuple[FusedLM, Path]) -> None:
    model, folder = over_bytes
    assert json.loads((folder / "config.json").read_text("utf8"))["encoder"]["byte_fallback"] is True
    loaded = FusedLM.from_pretrained(folder, device="cpu")
    assert loaded.prepare(["ଆମେ ଖେଳ"]) == model.prepare(["ଆମେ ଖେଳ"])
    plain = built()  # of an encoder without bytes in its vocabulary
    plain.save_pretrained(folder.parent / "plain")
    config = json.loads((folder.parent / "plain" / "config.json").read_text("utf8"))
    assert config["encoder"]["byte_fallback"] is False


def test_a_checkpoint_from_before_byte_fallback_keeps_its_ids(over_bytes: tuple[FusedLM, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_encoder_folder())
    loaded = FusedLM.from_pretrained(without_record(over_bytes[1]), device="cpu")
    texts = ["ଆମେ ଖେଳ", "The game é"]
    assert [example.encoder_ids for example in loaded.prepare(texts)] == tokenizer(texts)["input_ids"]
    assert tokenizer.unk_token_id in loaded.prepare(texts)[0].encoder_ids


def test_a_given_encoder_with_other_ids_is_refused(over_bytes: tuple[FusedLM, Path]) -> None:
    model, folder = over_bytes
    other = load_encoder(byte_encoder_folder(), BackboneOptions(device="cpu"), byte_fallback=False)
    with pytest.raises(CheckpointError, match=r"with byte_fallback true.*found false.*byte_fallback=True"):
        FusedLM.from_pretrained(folder, encoder=other, device="cpu")
    FusedLM.from_pretrained(folder, encoder=model.encoder, device="cpu")
    with pytest.raises(CheckpointError, match=r"with byte_fallback false.*found true.*byte_fallback=False"):
        FusedLM.from_pretrained(without_record(folder), encoder=model.encoder, device="cpu")
    FusedLM.from_pretrained(folder, encoder=other, device="cpu")


def test_a_tokenizer_that_falls_back_by_itself_is_as_good(over_bytes: tuple[FusedLM, Path], tmp_path: Path) -> None:
    model, folder = over_bytes
    own = tmp_path / "own"
    shutil.copytree(byte_encoder_folder(), own)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model.encoder.tokenizer.backend_tokenizer,
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    tokenizer.save_pretrained(own)
    loaded = FusedLM.from_pretrained(folder, encoder=str(own), device="cpu")
    assert not loaded.encoder.byte_fallback
    assert loaded.prepare(["ଆମେ ଖେଳ"]) == model.prepare(["ଆମେ ଖେଳ"])


def test_a_moved_backbone_is_accepted(saved: tuple[FusedLM, Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(lm_folder("llama"), moved)
    assert torch.equal(scores(FusedLM.from_pretrained(saved[1], lm=str(moved), device="cpu")), scores(saved[0]))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("fusion.safetensors", _truncate, "damaged or from another run"),
        ("fusion.safetensors", _flip, "damaged or from another run"),
        ("fusion.safetensors", Path.unlink, "Expected the weights file"),
        ("config.json", _truncate, "Expected JSON"),
        ("config.json", lambda p: p.write_text("[]"), "another JSON file"),
        ("config.json", Path.unlink, "Expected a checkpoint with config.json"),
    ],
)
def test_damage_is_a_clear_error(saved: tuple[FusedLM, Path], name: str, damage: Any, message: str) -> None:
    damage(saved[1] / name)
    with pytest.raises(CheckpointError, match=message):
        FusedLM.from_pretrained(saved[1], device="cpu")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        *(
            (name, None, f"Expected '{name}' of the type .*found none")
            for name in ("encoder", "lm", "fusion", "labels")
        ),
        ("encoder", ["e5"], "Expected 'encoder' of the type dict .*found list"),
        ("encoder", {}, "Expected 'name' of the type str"),
        ("lm", {"name": 7}, "Expected 'name' of the type str .*found int"),
        ("max_length", "256", "Expected 'max_length' of the type int .*found str"),
        ("adapter", "x", "Expected 'adapter' of the type dict"),
        ("probe_sha256", 5, "Expected 'probe_sha256' of the type str"),
        ("reference", [], "Expected 'reference' of the type dict"),
    ],
)
def test_a_malformed_part_of_the_config_is_named(
    saved: tuple[FusedLM, Path], part: str, value: Any, message: str
) -> None:
    path = saved[1] / "config.json"
    config = json.loads(path.read_text("utf8"))
    config[part] = value
    if value is None:
        del config[part]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        FusedLM.from_pretrained(saved[1], device="cpu")


@pytest.mark.parametrize(("key", "value"), [("prefix", 5), ("byte_fallback", "yes"), ("pooling", "mean")])
def test_a_malformed_way_to_read_is_named(saved: tuple[FusedLM, Path], key: str, value: Any) -> None:
    path = saved[1] / "config.json"
    config = json.loads(path.read_text("utf8"))
    config["encoder"][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"Expected '{key}' of the type .*found {type(value).__name__}"):
        FusedLM.from_pretrained(saved[1], device="cpu")


def test_an_unknown_key_of_an_identity_asks_for_an_update(saved: tuple[FusedLM, Path]) -> None:
    path = saved[1] / "config.json"
    config = json.loads(path.read_text("utf8"))
    config["lm"]["shape_of_things"] = "to come"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"identifies the lm .*shape_of_things.*Update glotfuse"):
        FusedLM.from_pretrained(saved[1], device="cpu")


def test_a_newer_format_is_refused(saved: tuple[FusedLM, Path]) -> None:
    path = saved[1] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf8")), "format": 99}))
    with pytest.raises(CheckpointError, match=r"format 1.*found 99"):
        FusedLM.from_pretrained(saved[1], device="cpu")


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        FusedLM.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("failing", ["fsync", "mkdtemp"])
def test_no_space_leaves_the_old_checkpoint_whole(
    saved: tuple[FusedLM, Path], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    model, folder = saved
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    expected = scores(model)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    other = built(mixer="mean")
    owner = files.os if failing == "fsync" else files.tempfile
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*Nothing there was changed"):
            other.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert torch.equal(scores(FusedLM.from_pretrained(folder, device="cpu")), expected)


def test_push_uploads_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: dict[str, Any] = {}

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> Any:
            calls["create"] = (repo_id, options)
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: str, **_: Any) -> None:
            calls["files"] = sorted(p.name for p in Path(folder_path).iterdir())

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    built().push_to_hub("someone/topics", private=True)
    assert calls["create"][0] == "someone/topics"
    assert calls["create"][1]["private"] is True
    assert calls["files"] == ["README.md", "config.json", "fusion.safetensors"]
