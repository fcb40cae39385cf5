"""A tiny model with examples to train on, and a training that is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from glotfuse.api import FusedLM
from glotfuse.backbones.identity import hash_module
from glotfuse.inputs.batch import prepare
from glotfuse.recipes.training_config import TrainingConfig
from glotfuse.training import trainer
from glotfuse.training.development import DevExamples
from glotfuse.training.schedule import Schedule
from glotfuse.training.trainer import TrainingOutcome
from tiny import TEXTS, tiny_model

LABELS = ("science", "politics", "sports")


OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 2, "learning_rate": 0.01, "evaluations": 3}


def fresh(seed: int = 0, **options: Any) -> tuple[FusedLM, list[Any], DevExamples]:
    set_seed(seed)
    model = tiny_model(labels=LABELS, **options)
    texts = [{"text": text} for text in TEXTS * 3]
    answers = [LABELS[i % 3] for i in range(len(texts))]
    examples = prepare(model.reader, model.prompt, texts, answers=answers)
    return model, examples[:9], DevExamples(examples[9:], answers[9:])


def digest(model: FusedLM) -> str:
    return hash_module(model.fusion)


class InterruptAt(Schedule):
    """Asks to stop after a given step, as Ctrl-C does."""

    step = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)
        super().on_step_end(args, state, control, **options)


def train(
    model: FusedLM,
    examples: Sequence[Any],
    dev: DevExamples | None,
    folder: Path,
    *,
    eval_batch_size: int = 32,
    adapter_learning_rate: float | None = None,
    **options: Any,
) -> TrainingOutcome:
    """Trains with settings of the optimisation by their names."""
    config = TrainingConfig(**options)
    return trainer.train(
        model, examples, dev, folder, config,
        eval_batch_size=eval_batch_size, adapter_learning_rate=adapter_learning_rate,
    )  # fmt: skip
