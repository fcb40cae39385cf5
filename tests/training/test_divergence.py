"""A training whose figures are not finite stops, keeps its last good state, and leaves nothing that looks trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from glotfuse.api import FusedLM
from glotfuse.errors import CheckpointError
from glotfuse.training.divergence import TrainingDivergedError, refuse_divergence
from glotfuse.training.state import last_state, save_parts
from small_training import OPTIONS, fresh, train
from tiny import tiny_model


def poisoned(model: FusedLM, after: int) -> None:
    """The loss is not a number from some forward pass in training on."""
    forward, calls = model.forward, []

    def run(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        found = forward(*arguments, **options)
        calls.append(model.training)
        return {**found, "loss": found["loss"] * math.nan} if sum(calls) > after else found

    model.forward = run  # type: ignore[method-assign]


def test_a_loss_that_is_no_number_stops_the_training_with_the_last_good_state(tmp_path: Path) -> None:
    model, examples, dev = fresh()
    poisoned(model, after=8)
    with pytest.raises(TrainingDivergedError, match=r"at step .*last good state is .*checkpoint-"):
        train(model, examples, dev, tmp_path / "state", **OPTIONS)
    assert last_state(tmp_path / "state") is not None


def test_without_a_state_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"step 3; found nan.*No state was saved before it"):
        refuse_divergence({"loss": math.nan}, 3, tmp_path, scaled=False)
    refuse_divergence({"grad_norm": math.inf, "loss": 1.0}, 3, tmp_path, scaled=True)  # float16 seeks its scale


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.fusion.boundary[0] = value
    with pytest.raises(CheckpointError, match=r"Expected finite weights in the state for .*found boundary"):
        save_parts(model, tmp_path / "state")
    with monkeypatch.context() as patch:
        patch.setattr("glotfuse.model.checkpoint.check_finite", lambda *_: None)
        model.settings.update(
            fusion={},
            prompt={},
            max_length=9,
            template="{text}",
            cut_column="text",
            instruction=None,
            labels=[],
            task="",
            scale=None,
        )
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"Expected finite weights in .*fusion\.safetensors; found boundary"):
        FusedLM.from_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="Expected finite weights in a fusion to save"):
        model.save_pretrained(tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
