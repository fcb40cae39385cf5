"""What a training changes: the fusion, and the LM's adapter where one is learning. Saved and restored between steps."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from glotfuse.errors import CheckpointError, GlotfuseError
from glotfuse.model.checkpoint import check_finite, load_fusion
from glotfuse.model.fused_model import FusedModel
from glotfuse.run_folder import WEIGHTS

ADAPTER_STATE = "adapter.safetensors"


def save_parts(model: FusedModel, folder: Path) -> None:
    """Writes the trained tensors; the fusion's come last, so where they are whole the adapter's are.

    Raises:
        CheckpointError: They are not finite.
    """
    check_finite(model.fusion.state_dict(), f"the state for {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    adapter = model.lm.adapter
    if adapter is not None and adapter.learning:
        save_file({name: t.detach().cpu().contiguous() for name, t in adapter.tensors.items()}, folder / ADAPTER_STATE)
    fusion = {name: t.detach().cpu().contiguous() for name, t in model.fusion.state_dict().items()}
    save_file(fusion, folder / WEIGHTS)


def load_parts(model: FusedModel, folder: Path) -> None:
    """Puts them back.

    Raises:
        CheckpointError: They are missing or do not fit.
    """
    load_fusion(model, load_file(folder / WEIGHTS), folder)
    adapter = model.lm.adapter
    if adapter is None or not adapter.learning:
        return
    if not (folder / ADAPTER_STATE).exists():
        raise CheckpointError(f"Expected the adapter's state {ADAPTER_STATE} in {folder}; found none. Start anew.")
    adapter.load(load_file(folder / ADAPTER_STATE))


def separate_adapter(optimizer: Any, model: FusedModel, learning_rate: float) -> None:
    """Moves the adapter's tensors into groups of their own with another learning rate."""
    if model.lm.adapter is None:
        return
    own = {id(tensor) for tensor in model.lm.adapter.tensors.values()}
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in own]
        if moved:
            group["params"] = [p for p in group["params"] if id(p) not in own]
            options = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**options, "params": moved, "lr": learning_rate})


class TrainingInterruptedError(GlotfuseError):
    """Training was stopped by the user; its state is on the disk."""


def discard_state(state_folder: Path) -> None:
    """Removes the state for resuming, once the finished checkpoint is on the disk."""
    shutil.rmtree(state_folder, ignore_errors=True)


def last_state(folder: Path) -> Path | None:
    """The newest complete state; a half-written one (killed while saving) is passed over."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for state in states:
        try:
            if _is_whole(state):
                return state
        except Exception:  # torn files fail in many ways; an older state is then the right one
            continue
    return None


def _is_whole(state: Path) -> bool:
    """Whether all files of a state are there and none is torn, whatever order a machine that died wrote them in."""
    needed = (WEIGHTS, "optimizer.pt", "scheduler.pt", "rng_state*.pth", "trainer_state.json")
    if not all(any(state.glob(name)) for name in needed):
        return False
    json.loads((state / "trainer_state.json").read_text("utf8"))
    for path in state.glob("*.safetensors"):
        load_file(path)
    for path in (*state.glob("*.pt"), *state.glob("*.pth")):  # torch writes zip files, with check sums
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
    return True
