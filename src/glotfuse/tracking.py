"""Where a training's figures go: always a local JSONL file, and trackers of the Trainer by recipe."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from glotfuse.errors import ConfigError
from glotfuse.json_lines import read_json_lines

LOG = "log.jsonl"
TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
"""Names that a recipe may give, and the packages of which one is needed."""


class LogFile(TrainerCallback):  # type: ignore[misc]
    """Appends every logged figure to a JSONL file with its step; a resumed run drops what came after its state."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keeps the lines up to the step that the run goes on from."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step] if state.global_step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Writes one line."""
        if not state.is_world_process_zero:
            return
        figures = {name: value for name, value in logs.items() if isinstance(value, int | float)}
        with self.path.open("a", encoding="utf8") as handle:
            handle.write(json.dumps({"step": state.global_step, **figures}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a log; a line that was torn by a crash is left out."""
    return [line for line in read_json_lines(path) if isinstance(line.get("step"), int)]


def check_trackers(names: Sequence[str]) -> None:
    """Finds out before minutes of loading whether trackers are installed.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        packages = TRACKERS[name]
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(
                f"Expected the package {packages[0]} for training.report_to {name}; it is not installed. "
                f"Install it with `pip install {packages[0]}`, or take {name} out: {LOG} is written in any case."
            )


@contextmanager
def tracking(folder: Path) -> Iterator[None]:
    """Trackers keep their files in the run's folder, and runs stand together, unless the environment says otherwise."""
    ours = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": "glotfuse",
    }
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
