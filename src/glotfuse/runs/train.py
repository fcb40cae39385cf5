"""A run: from a recipe to a trained checkpoint in a folder; `glotfuse.run_folder` lists what the folder holds."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import set_seed

from glotfuse import distributed
from glotfuse.api import FusedLM
from glotfuse.backbones import LM, Encoder
from glotfuse.errors import ConfigError
from glotfuse.files import to_json
from glotfuse.model import checkpoint
from glotfuse.model.assembly import build_model, read_with, reader_up_to
from glotfuse.progress import Bar, console
from glotfuse.provenance import command_line, hardware, versions
from glotfuse.recipes.checks import check
from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import to_dict
from glotfuse.run_folder import CONFIG, RECORD, STAGES, STATE
from glotfuse.runs import stages
from glotfuse.runs.backbones import load_backbones, load_run_encoder, start_processes
from glotfuse.runs.data import RunRows, as_text, input_reader, label_of, load_rows, task_of
from glotfuse.runs.folder import claim
from glotfuse.runs.kept_states import keeping_states
from glotfuse.runs.run import Run
from glotfuse.runs.views import Purpose
from glotfuse.tasks import Task, sample
from glotfuse.training import baseline, trainer
from glotfuse.training.centring import centre
from glotfuse.training.objectives import OBJECTIVES
from glotfuse.training.probe_fitting import fit_probe, weigh
from glotfuse.training.state import discard_state, last_state
from glotfuse.training.warm_start import align

_CENTRING_TEXTS = 2000


def train_run(
    recipe: Recipe, folder: Path, *, overwrite: bool = False, backbones: tuple[Encoder, LM] | None = None
) -> FusedLM | None:
    """Trains what a recipe describes and saves the checkpoint.

    An interrupted run of the same recipe in the same folder goes on from its saved state.

    Args:
        recipe: The run.
        folder: Where it is saved.
        overwrite: Whether a finished or different run in the folder may be replaced.
        backbones: Already loaded ones, to share between runs.

    Returns:
        The model; None for the method `embedding`, which has none.

    Raises:
        CheckpointError: The folder holds another run.
        ConfigError: Parts of the recipe do not fit together, or the processes cannot share a batch evenly.
        TrainingInterruptedError: The user pressed Ctrl-C; the state is saved.

    Example:
        >>> model = train_run(load_recipe("recipes/sib200.yaml"), Path("runs/sib200"))  # doctest: +SKIP
    """
    started = time.monotonic()
    check(recipe)  # before minutes of loading
    if recipe.general.from_run:
        stages.source_folder(recipe.general.from_run)
    start_processes(recipe)
    distributed.share_of_batch(recipe.training.batch_size)
    task = task_of(recipe.task)
    distributed.once(lambda: claim(folder, recipe, overwrite))
    rows = load_rows(task, recipe)
    if recipe.objective:
        task, rows = as_text(task, rows, recipe.objective)
    if recipe.method == "embedding":
        _train_embedding(recipe, folder, task, rows, backbones[0] if backbones else load_run_encoder(recipe))
        return None
    if recipe.probe.kind != "none" and len({row.label for row in rows.train} - {None}) < 2:
        raise ConfigError(
            f"Expected probe.kind none for {task.name}, whose training rows have fewer than two labels; found "
            f"{recipe.probe.kind!r}."
        )
    encoder, lm = backbones or load_backbones(recipe)
    for name, stage in stages.stage_recipes(recipe).items():
        if not (folder / STAGES / name / CONFIG).exists():
            console.print(f"Stage {name}", style="bold")
            train_run(stage, folder / STAGES / name, backbones=(encoder, lm.plain))
    start = stages.start_from(recipe, folder, lm.plain)
    set_seed(recipe.training.seed)
    run = Run(recipe, folder, task, rows, _fresh_model(recipe, task, encoder, start.lm))
    reader = reader_up_to(run.model, recipe.evaluation.max_length)  # before training, for it may be refused
    if start.fusion is not None:
        stages.hand_over(run.model, start.fusion)
    record = _train(run, fresh=start.fusion is None)
    if recipe.probe.kind != "none":
        record["probe"] = _fit_probe(run)
    if start.fusion is not None and task.label_column is not None and recipe.adapter.kind == "none":
        stages.keep_reading(run.model, start.fusion)
    if start.records:
        record["stages"] = start.records
    record = {**_provenance(recipe, rows, started), **record}

    read_with(run.model, reader)

    def finish() -> None:
        checkpoint.save(run.model, folder, record)
        discard_state(folder / STATE)

    distributed.once(finish)
    return run.model


def _fresh_model(recipe: Recipe, task: Task, encoder: Encoder, lm: LM) -> FusedLM:
    model = build_model(
        FusedLM,
        encoder,
        lm,
        fusion=recipe.fusion,
        prompt=recipe.prompt,
        max_length=recipe.encoder.max_length,
        template=task.template,
        cut_column=task.cut_column,
        instruction=task.instruction,
        labels=task.labels,
        task=task.name,
    )
    if recipe.objective:
        model.objective = OBJECTIVES[recipe.objective].loss
    return model


def _train(run: Run, *, fresh: bool) -> dict[str, Any]:
    """Trains the run's model, or goes on with it; returns what the record says of it.

    Args:
        run: The run.
        fresh: Whether the fusion's weights come from nowhere, and have a warm start.
    """
    config = run.recipe.training
    train, dev = run.train, run.dev  # in all processes, before one of them works alone
    resuming = distributed.once(lambda: last_state(run.folder / STATE)) is not None
    with keeping_states(run):
        warm_start = None
        if fresh and not resuming:
            distributed.once(lambda: _centre(run))
            warm_start = distributed.once(lambda: _warm_start(run))
        distributed.share_weights(run.model.fusion)
        if config.epochs and any(weights.requires_grad for weights in run.model.parameters()):
            outcome = trainer.train(
                run.model,
                train,
                dev if dev.examples else None,
                run.folder / STATE,
                config,
                eval_batch_size=run.recipe.evaluation.batch_size,
                adapter_learning_rate=run.recipe.adapter.learning_rate,
            )
        else:
            run.model.eval()
            outcome = trainer.TrainingOutcome(0, None, None, [])
    return {
        "num_truncated": run.num_truncated,
        "warm_start": warm_start,
        "num_steps": outcome.num_steps,
        "best_step": outcome.best_step,
        "best_development_figure": outcome.best_metric,
        "average_development_figure": outcome.average_metric,
        "log": outcome.log,
    }


def _centre(run: Run) -> None:
    model = run.model
    if not model.fusion.reads_encoder or model.mixing.centring is None:
        return
    every = math.ceil(len(run.train) / _CENTRING_TEXTS)  # from all over the data, which may be sorted
    chosen = [example.encoder_ids for example in run.train[::every]]
    with Bar("centring", len(chosen)) as bar:
        centre(model, chosen, bar.advance)


def _warm_start(run: Run) -> dict[str, Any] | None:
    config, model, task = run.recipe.fusion, run.model, run.task
    if config.warm_start == "none" or not model.fusion.reads_encoder:
        return None
    chosen = run.rows.train
    if len(chosen) > config.warm_start_texts:
        chosen = sample(chosen, config.warm_start_texts, run.recipe.training.seed)
    texts = [model.reader.template.format_map(row.fields) for row in chosen]
    # whole documents are read here alone, and training keeps the states of their first parts
    states = model.reading_states(None) if task.label_column is None else nullcontext()
    with Bar("warm start", len(texts)) as bar, states:
        return asdict(align(model, texts, language=task.train_language, progress=bar.advance))


def _fit_probe(run: Run) -> dict[str, Any]:
    """Fits the probe, weighs it against the trained LM, and gives it to the model; returns what was chosen."""
    train = run.probe_rows(run.rows.train, Purpose.PROBE)
    dev = run.probe_rows(run.rows.dev, Purpose.DEVELOPMENT) if run.rows.dev else None
    probe, chosen = fit_probe(run.model, train, dev, seed=run.recipe.training.seed)
    if dev is not None:
        probe, figures = weigh(run.model, probe, dev, run.recipe.evaluation.batch_size)
        chosen = {**chosen, **figures}
    run.model.probe = probe
    return chosen


def _train_embedding(recipe: Recipe, folder: Path, task: Task, rows: RunRows, encoder: Encoder) -> None:
    started = time.monotonic()
    if not task.labels:
        raise ConfigError(f"Expected a task with labels for the method 'embedding'; {task.name} has unlabelled text.")
    train, dev = (([row.fields for row in part], [label_of(row) for row in part]) for part in (rows.train, rows.dev))
    classifier, chosen = baseline.fit(
        encoder,
        input_reader(task, encoder, recipe.encoder.max_length),
        task.labels,
        train,
        dev if rows.dev else None,
        language=task.train_language,
        seed=recipe.training.seed,
    )
    record = to_json({**_provenance(recipe, rows, started), "chosen": chosen, "log": []})
    distributed.once(lambda: baseline.save(classifier, folder, {RECORD: record}))


def _provenance(recipe: Recipe, rows: RunRows, started: float) -> dict[str, Any]:
    return {
        "recipe": to_dict(recipe),
        "data": [asdict(report) for report in rows.reports],
        "num_train_examples": len(rows.train),
        "num_dev_examples": len(rows.dev),
        "leaks": [asdict(leak) for leak in rows.leaks],
        "seconds": round(time.monotonic() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "hardware": hardware(),
        "versions": versions(),
    }
