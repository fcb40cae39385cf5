"""Where a training's figures go: always a local JSONL file, and trackers of the Trainer by recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from glotfuse.errors import CheckpointError
from glotfuse.files import write_file
from glotfuse.run_folder import LOG, read_log


class LogFile(TrainerCallback):  # type: ignore[misc]
    """Appends every logged figure to the run folder's log with its step; a resumed run drops what came after its state.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOG

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keeps the lines up to the step that the run goes on from."""
        if not state.is_world_process_zero:
            return
        kept = (
            [line for line in read_log(self.path.parent) if line["step"] <= state.global_step]
            if state.global_step
            else []
        )
        write_file(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Writes one line."""
        if not state.is_world_process_zero:
            return
        figures = {name: value for name, value in logs.items() if isinstance(value, int | float)}
        try:
            with self.path.open("a", encoding="utf8") as handle:
                handle.write(json.dumps({"step": state.global_step, **figures}) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"Expected to add the figures of step {state.global_step} to {self.path}; found: "
                f"{error.strerror or error}. Saved states are whole: free some space and run the same command again."
            ) from error


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
