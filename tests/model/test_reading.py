"""A task's model keeps the fusion that it started from, and follows other instructions by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from built import built
from glotfuse.api import FusedLM
from glotfuse.backbones.identity import hash_module
from glotfuse.errors import CheckpointError
from glotfuse.model import locating, self_check
from glotfuse.run_folder import READING, read_config
from tiny import TEXTS


@pytest.fixture
def model() -> FusedLM:
    model = built(mixer="mean")
    weights = {name: tensor + 0.5 for name, tensor in model.fusion.state_dict().items()}
    model.keep_reading(weights)
    return model


def plain(model: FusedLM, *, reading: bool) -> FusedLM:
    """The same model with one of the two fusions alone."""
    other = built(mixer="mean")
    source = model.reading if reading else model.fusion
    assert source is not None
    other.fusion.load_state_dict(source.state_dict())
    return other


def test_another_instruction_is_followed_by_the_kept_fusion(model: FusedLM) -> None:
    for instruction, reading in ((None, False), ("Summarise in English.", True)):
        found = model.generate(TEXTS, instruction=instruction, max_new_tokens=8)
        assert found == plain(model, reading=reading).generate(TEXTS, instruction=instruction, max_new_tokens=8)
    streamed = "".join(model.stream(TEXTS[0], instruction="Summarise in English.", max_new_tokens=8))
    assert streamed.strip() == found[0]
    assert found != plain(model, reading=False).generate(TEXTS, instruction="Summarise in English.", max_new_tokens=8)


def test_labels_are_read_by_the_trained_fusion(model: FusedLM) -> None:
    expected = plain(model, reading=False).classify(TEXTS)
    for one, other in zip(model.classify(TEXTS), expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_it_is_saved_and_loaded_and_not_trained(model: FusedLM, tmp_path: Path) -> None:
    assert model.reading is not None
    assert not any(weights.requires_grad for weights in model.reading.parameters())
    model.train()
    assert not model.reading.training
    model.save_pretrained(tmp_path)
    loaded = FusedLM.from_pretrained(tmp_path, device="cpu")
    assert loaded.reading is not None
    for name, tensor in loaded.reading.state_dict().items():
        torch.testing.assert_close(tensor, model.reading.state_dict()[name], rtol=1e-3, atol=1e-3)
    assert hash_module(loaded.fusion) == hash_module(model.fusion)
    (tmp_path / READING).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"reading\.safetensors"):
        FusedLM.from_pretrained(tmp_path, device="cpu")


def test_an_unknown_fusion_of_the_package_names_those_that_are_there() -> None:
    with pytest.raises(CheckpointError, match=r"bundled:e5-small\+smollm2-135m"):
        locating.locate("bundled:e5-smal+smollm2-135m")


def test_every_fusion_of_the_package_is_small_and_whole() -> None:
    names = locating.bundled_fusions()
    assert names == ["bundled:e5-small+smollm2-135m"]
    for name in names:
        folder = locating.locate(name)
        assert (folder / "fusion.safetensors").stat().st_size < 3_000_000
        assert {path.name for path in folder.iterdir()} == {
            "README.md", "config.json", "fusion.safetensors", "recipe.json", "training.json"
        }  # fmt: skip
        kept = read_config(folder)["reference"]  # whoever loads it under other library versions has it compared
        assert len(kept["log_probabilities"]) == len(self_check.TEXTS)
