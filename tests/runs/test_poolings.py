"""Runs with encoders that pool each in its way: what was fitted to an embedding is only ever read with the same one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from glotfuse import FusedLM
from glotfuse.backbones import BackboneOptions, load_encoder, loading
from glotfuse.backbones.identity import hash_module
from glotfuse.backbones.pooling import MEAN
from glotfuse.errors import CheckpointError
from glotfuse.model.sentence_embeddings import column_embeddings
from glotfuse.recipes.config import Recipe
from glotfuse.run_folder import CONFIG, EMBEDDING_CONFIG
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task
from tiny import encoder_folder, tiny_encoder

TEXTS = ["The team won the match.", "A new planet.", "විද්‍යාව ගැන පොතක්"]
FAMILIES = ("mmbert", "embedding-gemma", "bge-m3", "qwen3-embedding")


def recipe_of(tmp_path: Path, family: str, **sections: Any) -> Recipe:
    encoder = {"name": encoder_folder(family), "max_length": 64, **sections.pop("encoder", {})}
    return small_recipe(write_task(tmp_path / "data"), encoder=encoder, **sections)


def with_probe(tmp_path: Path, family: str, **encoder: Any) -> tuple[Recipe, FusedLM]:
    """A trained run whose labels are mostly the probe's."""
    once = {"epochs": 1, "evaluations": 1}
    recipe = recipe_of(tmp_path, family, probe={"kind": "kernel"}, training=once, encoder=encoder)
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    assert model.probe is not None
    return recipe, model


def probabilities(model: FusedLM) -> list[list[float]]:
    return [list(found.probabilities.values()) for found in model.classify(TEXTS)]


def edit(path: Path, change: Any) -> None:
    values = json.loads(path.read_text("utf8"))
    change(values)
    path.write_text(json.dumps(values), "utf8")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_trains_measures_saves_and_loads(family: str, tmp_path: Path) -> None:
    recipe, model = with_probe(tmp_path, family)
    before = hash_module(load_encoder(encoder_folder(family), BackboneOptions(device="cpu")))
    assert hash_module(model.encoder) == before, "frozen"
    config = json.loads((tmp_path / "run" / CONFIG).read_text("utf8"))
    assert config["encoder"]["pooling"] == tiny_encoder(family).pooling.to_dict()
    assert {result.language for result in measure_run(tmp_path / "run", recipe).results} == {"eng_Latn", "sin_Sinh"}
    loaded = FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    for own, again in zip(probabilities(model), probabilities(loaded), strict=True):
        assert own == pytest.approx(again, abs=1e-4)
    probe = model.probe
    assert probe is not None
    examples = loaded.prepare(TEXTS)
    torch.testing.assert_close(
        probe.log_probabilities(column_embeddings(loaded.encoder, examples)),
        probe.log_probabilities(column_embeddings(model.encoder, examples)),
        atol=1e-4,
        rtol=1e-4,
    )
    model.probe = replace(probe, shares=torch.tensor([0.0, 1.0]))  # its embeddings come from the pass for the span
    expected = probe.log_probabilities(column_embeddings(model.encoder, examples)).exp()
    torch.testing.assert_close(torch.tensor(probabilities(model)), expected, atol=1e-4, rtol=1e-3)
    width = model.encoder.embedding_size
    assert probe.landmarks.shape[1] == probe.centre.shape[0] == width


@pytest.mark.parametrize("family", ["bge-m3", "qwen3-embedding", "embedding-gemma"])
def test_a_checkpoint_from_before_poolings_were_recorded_keeps_its_means(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = with_probe(tmp_path, family, pooling="mean")
    expected = probabilities(model)
    recorded = json.loads((tmp_path / "run" / CONFIG).read_text("utf8"))["encoder"]["pooling"]
    assert recorded == MEAN
    edit(tmp_path / "run" / CONFIG, lambda values: values["encoder"].pop("pooling"))
    shared = tiny_encoder(family)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "read_pooling", None)  # files that cannot be read do not matter
        assert FusedLM.from_pretrained(tmp_path / "run", device="cpu").encoder.pooling.to_dict() == MEAN
    for encoder in (None, encoder_folder(family), shared):
        loaded = FusedLM.from_pretrained(tmp_path / "run", encoder=encoder, device="cpu")
        assert loaded.encoder.pooling.to_dict() == MEAN
        for own, again in zip(expected, probabilities(loaded), strict=True):
            assert own == pytest.approx(again, abs=1e-4)
    assert shared.pooling.to_dict() == tiny_encoder(family).pooling.to_dict() != MEAN, "the given one is left alone"


def test_a_probe_of_linear_maps_needs_them(tmp_path: Path) -> None:
    _, _ = with_probe(tmp_path, "embedding-gemma")
    means = tiny_encoder("embedding-gemma", pooling="mean")
    with pytest.raises(CheckpointError, match=r"probe in .*mean with linear maps .*; found mean without linear maps"):
        FusedLM.from_pretrained(tmp_path / "run", encoder=means, device="cpu")
    other = tmp_path / "other"
    shutil.copytree(encoder_folder("embedding-gemma"), other)
    weights = load_file(other / "3_Dense" / "model.safetensors")
    save_file({"linear.weight": weights["linear.weight"] + 1}, other / "3_Dense" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mean with linear maps .*; found mean with linear maps .*train again"):
        FusedLM.from_pretrained(tmp_path / "run", encoder=str(other), device="cpu")


def test_without_a_probe_linear_maps_are_nobodys_matter(tmp_path: Path) -> None:
    once = {"epochs": 1, "evaluations": 1}
    model = train_run(recipe_of(tmp_path, "embedding-gemma", training=once), tmp_path / "run")
    assert model is not None
    means = tiny_encoder("embedding-gemma", pooling="mean")
    loaded = FusedLM.from_pretrained(tmp_path / "run", encoder=means, device="cpu")
    for own, again in zip(probabilities(model), probabilities(loaded), strict=True):
        assert own == pytest.approx(again, abs=1e-4)


@pytest.mark.parametrize(("family", "pooling"), [("bge-m3", None), ("bge-m3", "max"), ("embedding-gemma", None)])
def test_the_baseline_is_measured_with_the_embeddings_that_it_learned(
    family: str, pooling: str | None, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, family, encoder={"pooling": pooling}, method="embedding")
    train_run(recipe, tmp_path / "run")
    path = tmp_path / "run" / EMBEDDING_CONFIG
    own = tiny_encoder(family, pooling=pooling).pooling.to_dict()
    assert json.loads(path.read_text("utf8"))["pooling"] == own
    assert len(measure_run(tmp_path / "run", recipe).results) == 2


def test_a_baseline_from_before_keeps_its_means(tmp_path: Path) -> None:
    from glotfuse.inputs.reader import InputReader
    from glotfuse.training import baseline

    train_run(recipe_of(tmp_path, "bge-m3", encoder={"pooling": "mean"}, method="embedding"), tmp_path / "run")
    edit(tmp_path / "run" / EMBEDDING_CONFIG, lambda values: values.pop("pooling"))
    found = []
    for encoder in (tiny_encoder("bge-m3"), tiny_encoder("bge-m3", pooling="mean")):
        model, _ = baseline.load(tmp_path / "run", encoder, InputReader(encoder, max_length=64))
        found.append(model.classify_prepared(model.prepare(TEXTS)))
    assert found[0] == found[1]
