"""When training evaluates, saves and stops, and what it shows meanwhile."""

from __future__ import annotations

import math
from typing import Any

from accelerate.utils import set_seed
from transformers import TrainerCallback

from glotfuse import distributed
from glotfuse.progress import Bar, StopRequest


class Schedule(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at evenly spread steps, stops on request, and shows progress.

    Args:
        num_evaluations: How many.
        stop: Read after each step.
        has_dev: Whether there are development examples.
        batch: Examples per optimizer step.
        every: Steps from one log line to the next; the loss in it is their mean. On a GPU each line waits for it.
    """

    def __init__(self, num_evaluations: int, stop: StopRequest, has_dev: bool, batch: int, every: int = 1):
        self._num_evaluations = num_evaluations
        self._stop = stop
        self._has_dev = has_dev
        self._batch = batch
        self._every = every
        self._shown = 0
        self._bar: Bar | None = None
        self._loss = self._dev = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Plans the evaluations and starts the bar."""
        steps = state.max_steps
        if args.world_size > 1:
            set_seed(args.seed, device_specific=True)  # equal dropout on different rows would be less random
        self._due = {math.ceil(steps * i / self._num_evaluations) for i in range(1, self._num_evaluations + 1)}
        self._bar = Bar("training", steps * self._batch)
        self._bar.__enter__()
        self._bar.extend(-state.global_step * self._batch)
        self._shown = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Says what is due after this step."""
        due = state.global_step % self._every == 0 or state.global_step == state.max_steps
        control.should_log = due or state.global_step in self._due
        if state.global_step in self._due:
            control.should_evaluate = self._has_dev
            control.should_save = True
        if distributed.any_of(self._stop.requested):  # all stop after the same step
            self._stop.requested = True
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Moves the bar."""
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.3f}"
            if self._bar:
                steps, self._shown = state.global_step - self._shown, state.global_step
                self._bar.advance(self._batch * steps, f"{self._loss}{self._dev}")
        if "eval_loss" in logs:
            accuracy = f" acc {100 * logs['eval_accuracy']:.1f}%" if "eval_accuracy" in logs else ""
            self._dev = f"  dev {logs['eval_loss']:.3f}{accuracy}"

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends the bar."""
        self.close()

    def close(self) -> None:
        """Ends the bar, if one is shown."""
        if self._bar:
            self._bar.__exit__()
            self._bar = None
