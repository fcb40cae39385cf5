"""What sentence-transformers' files say of a pooling, old and new, from a folder and from the hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fake_hub import FakeHub
from glotfuse.backbones import BackboneOptions, load_encoder
from glotfuse.backbones.pooling import MODES, Pooling
from glotfuse.backbones.pooling_files import read_pooling
from glotfuse.errors import BackboneError
from tiny import encoder_folder, tiny_encoder
from tiny_embedders import WIDTH, sentence_transformers

SWITCHES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def modes_of(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    sentence_transformers(folder, config)
    return read_pooling(str(folder)).modes


@pytest.mark.parametrize("mode", MODES)
def test_old_switches_and_new_names_mean_the_same(mode: str, tmp_path: Path) -> None:
    old = {switch: name == mode for name, switch in SWITCHES.items()}
    assert modes_of(tmp_path, old) == modes_of(tmp_path, {"pooling_mode": mode}) == (mode,)


def test_several_modes_none_and_the_prompt(tmp_path: Path) -> None:
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    assert modes_of(tmp_path, both) == ("cls", "mean")
    assert modes_of(tmp_path, {"pooling_mode": ["mean", "cls"]}) == ("mean", "cls")
    assert modes_of(tmp_path, {"pooling_mode_cls_token": False}) == ("mean",)
    assert read_pooling(str(tmp_path)).include_prompt
    sentence_transformers(tmp_path, {"pooling_mode": "cls", "include_prompt": False})
    assert not read_pooling(str(tmp_path)).include_prompt


@pytest.mark.parametrize(
    ("family", "modes", "maps"),
    [
        ("xlm-r", ("mean",), []),
        ("mmbert", ("mean",), []),
        ("embedding-gemma", ("mean",), [(40, WIDTH), (WIDTH, 40)]),
        ("bge-m3", ("cls",), []),
        ("qwen3-embedding", ("lasttoken",), []),
    ],
)
def test_a_loaded_encoder_has_its_own_pooling(family: str, modes: tuple[str, ...], maps: list[Any]) -> None:
    found = tiny_encoder(family).pooling
    assert (found.modes, [tuple(dense.weight.shape) for dense in found.dense]) == (modes, maps)
    for named in ("max", Pooling.named("max")):
        other = tiny_encoder(family, pooling=named).pooling
        assert (other.modes, other.dense) == (("max",), ())


def test_class_names_of_newer_versions_are_known(tmp_path: Path) -> None:
    sentence_transformers(tmp_path, {"pooling_mode": "cls"}, dense=[torch.eye(WIDTH)])
    path = tmp_path / "modules.json"
    modules = json.loads(path.read_text())
    for module, place in zip(modules, ("base", "sentence_transformer", "base", "base"), strict=True):
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.{place}.modules.{kind.lower()}.{kind}"
    path.write_text(json.dumps(modules))
    found = read_pooling(str(tmp_path))
    assert (found.modes, len(found.dense)) == (("cls",), 1)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_linear_maps_are_read_with_bias_and_activation(file: str, tmp_path: Path) -> None:
    sentence_transformers(tmp_path, {"pooling_mode": "mean"}, dense=[torch.zeros(5, WIDTH)])
    place = tmp_path / "2_Dense"
    weights = {"linear.weight": torch.randn(5, WIDTH), "linear.bias": torch.randn(5)}
    (place / "model.safetensors").unlink()
    if file.endswith("bin"):
        torch.save(weights, place / file)
    else:
        save_file({name: tensor.half() for name, tensor in weights.items()}, place / file)
    config = {"in_features": WIDTH, "out_features": 5, "bias": True}
    for activation, expected in ((None, lambda x: x), ("torch.nn.modules.activation.Tanh", torch.tanh)):
        (place / "config.json").write_text(json.dumps({**config, "activation_function": activation}))
        [dense] = read_pooling(str(tmp_path)).dense
        x = torch.randn(2, WIDTH)
        found = expected(x @ weights["linear.weight"].T + weights["linear.bias"])
        torch.testing.assert_close(dense(x), found, atol=0.02, rtol=0.01)
    (place / "config.json").write_text(json.dumps(config))
    assert read_pooling(str(tmp_path)).dense[0].activation == "Tanh"  # sentence-transformers' own default


DAMAGES = {
    "no list": "a list of modules",
    "other module": r"Dense and at last Normalize.*found LSTM in '1_Pooling'",
    "dense after normalize": "Dense and at last Normalize.*found Dense",
    "no pooling file": r"the file 1_Pooling/config\.json",
    "unknown mode": "poolings out of cls, .*found \\['median'\\]",
    "activation": "one of Identity, .*found 2_Dense/config.json .*Sine",
    "residual": "no residual, .*found 2_Dense/config.json",
    "tokens": "from sentence_embedding to itself.*found 2_Dense/config.json",
    "no weights": r"the weights linear\.weight of 2_Dense, .*found FileNotFoundError",
    "torn weights": r"the weights linear\.weight of 2_Dense, .*found SafetensorError",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_known_is_refused_with_the_way_out(damage: str, tmp_path: Path) -> None:
    sentence_transformers(tmp_path, {"pooling_mode": "mean"}, dense=[torch.eye(WIDTH)])
    path, dense = tmp_path / "modules.json", tmp_path / "2_Dense"
    modules = json.loads(path.read_text())
    extra: dict[str, Any] = {
        "activation": {"activation_function": "own.Sine"},
        "residual": {"use_residual": True},
        "tokens": {"module_input_name": "token_embeddings"},
    }
    if damage == "no list":
        path.write_text("{")
    elif damage == "other module":
        modules[1]["type"] = "sentence_transformers.models.LSTM"
        path.write_text(json.dumps(modules))
    elif damage == "dense after normalize":
        path.write_text(json.dumps([*modules, modules[2]]))
    elif damage == "no pooling file":
        (tmp_path / "1_Pooling" / "config.json").unlink()
    elif damage == "unknown mode":
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "median"}))
    elif damage in extra:
        config = json.loads((dense / "config.json").read_text())
        (dense / "config.json").write_text(json.dumps({**config, **extra[damage]}))
    elif damage == "no weights":
        (dense / "model.safetensors").unlink()
    else:
        (dense / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(BackboneError, match=DAMAGES[damage]) as caught:
        read_pooling(str(tmp_path))
    assert "encoder.pooling or load_encoder(pooling=...), out of cls, max, mean" in str(caught.value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with its own cache, which says of single files that they are missing, as the hub does."""
    import huggingface_hub.constants as constants

    served = FakeHub()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield served
    served.close()


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_the_hubs_files_are_read_and_then_kept(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    sentence_transformers(folder, {"pooling_mode": "cls"}, dense=[torch.eye(WIDTH)])
    hub.files["some/embedder"] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    hub.files["some/encoder"] = {"config.json": b"{}"}
    with caplog.at_level(logging.WARNING, "glotfuse"):
        for _ in range(2):
            found = read_pooling("some/embedder")
            assert (found.modes, len(found.dense)) == (("cls",), 1)
            assert read_pooling("some/encoder").modes == ("mean",)
            offline(monkeypatch)
    assert "pooling of its own" not in caplog.text
    with caplog.at_level(logging.WARNING, "glotfuse"):
        assert read_pooling("some/other").modes == ("mean",)
    assert "some/other has a pooling of its own (modules.json) cannot be read" in caplog.text
    assert "encoder.pooling" in caplog.text


def test_a_pooling_that_is_named_needs_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from glotfuse.backbones import loading

    monkeypatch.setattr(loading, "read_pooling", None)
    encoder = load_encoder(encoder_folder("bge-m3"), BackboneOptions(device="cpu"), pooling="mean")
    assert encoder.pooling.modes == ("mean",)
