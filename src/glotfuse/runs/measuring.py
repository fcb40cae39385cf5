"""Measures the run in a folder: the saved checkpoint on every language of its task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from glotfuse.api import FusedLM
from glotfuse.backbones import LM, BackboneOptions, Encoder
from glotfuse.errors import DataError
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.model import checkpoint
from glotfuse.recipes.config import EncoderConfig, LMConfig, Recipe
from glotfuse.run_folder import read_config
from glotfuse.runs.backbones import backbone_options, load_run_encoder, start_processes
from glotfuse.runs.data import input_reader, task_of
from glotfuse.runs.predicting import Labeller, evaluate
from glotfuse.tasks import Example, Task
from glotfuse.training import baseline


def measure_run(folder: Path, recipe: Recipe, backbones: tuple[Encoder, LM] | None = None) -> EvaluationReport:
    """Loads the saved checkpoint, so that what is measured is what was saved, and measures it.

    Args:
        folder: The run.
        recipe: Its recipe, with the evaluation that is wanted.
        backbones: Already loaded ones.
    """
    start_processes(recipe)
    task, settings = task_of(recipe.task), recipe.evaluation
    labeller: Labeller
    if recipe.method == "embedding":
        encoder = backbones[0] if backbones else load_run_encoder(recipe)
        reader = input_reader(task, encoder, settings.max_length or recipe.encoder.max_length)
        labeller, weights_sha256 = baseline.load(folder, encoder, reader)
    else:
        loaded = backbones or (None, None)
        recorded = read_config(folder)
        labeller = FusedLM.from_pretrained(
            folder,
            encoder=loaded[0],
            lm=loaded[1],
            encoder_options=_pinned(recipe.encoder, recipe.device, recorded["encoder"]),
            lm_options=_pinned(recipe.lm, recipe.device, recorded["lm"]),
        )
        weights_sha256 = checkpoint.weights_identity(recorded)
    return evaluate(
        labeller,
        task,
        folder,
        run_name=folder.name,
        weights_sha256=weights_sha256,
        split=settings.split,
        languages=settings.languages,
        batch_size=settings.batch_size,
        max_examples=settings.max_examples,
        learned=_learned(task),
    )


def _pinned(config: EncoderConfig | LMConfig, device: str, recorded: dict[str, Any]) -> BackboneOptions:
    """How the run loaded a backbone, with the commit that it recorded."""
    return replace(backbone_options(config, device), revision=recorded["revision"])


def _learned(task: Task) -> list[Example] | None:
    """What teaches and chooses, to look for it among the rows that are measured; None where it is not here."""
    try:
        splits = [name for name in ("train", "dev") if task.languages(name)]
        return [row for name in splits for row in task.load(name, task.train_language).examples] or None
    except DataError:
        return None


def with_evaluation(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other evaluation settings where a value is given."""
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(recipe, evaluation=replace(recipe.evaluation, **given))
