"""A training whose figures are not finite any more is stopped: what comes after is lost, and would look finished."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from glotfuse.errors import GlotfuseError

_WATCHED = ("loss", "grad_norm", "eval_loss")


class TrainingDivergedError(GlotfuseError):
    """A loss or gradient norm is infinite or not a number; the states before it are on the disk."""


def refuse_divergence(logs: Mapping[str, float], step: int, state_folder: Path, *, scaled: bool) -> None:
    """Looks at the figures of a log line.

    Args:
        logs: The line.
        step: Optimizer steps so far.
        state_folder: Where earlier states are.
        scaled: Whether gradients are scaled (float16), whose norm is infinite while a scale is sought.

    Raises:
        TrainingDivergedError: A figure is not finite.
    """
    for name in _WATCHED:
        if name not in logs or math.isfinite(logs[name]) or (scaled and name == "grad_norm"):
            continue
        states = sorted(state_folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        kept = f"The last good state is {states[-1]}." if states else "No state was saved before it."
        raise TrainingDivergedError(
            f"Expected a finite {name} at step {step}; found {logs[name]}. Training is stopped and nothing of it is "
            f"saved. {kept} Lower training.learning_rate, set training.precision to float32 or lm.dtype to bfloat16 "
            "(float16 overflows in many models), and look for empty or odd rows; then train into a new folder."
        )
