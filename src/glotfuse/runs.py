"""A run: from a recipe to a trained checkpoint in a folder.

The folder holds the checkpoint, `recipe.json`, while training the Trainer's state in `state/`, and after evaluation
the report and the predictions.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import set_seed

from glotfuse import checkpoint, distributed, embedding, stages, training
from glotfuse.alignment import align
from glotfuse.assembly import build_model
from glotfuse.augmentation import Views, prepare_examples, probe_rows, wants_views
from glotfuse.backbones import LM, BackboneOptions, Encoder, load_encoder, load_lm
from glotfuse.backbones.loading import resolve_device
from glotfuse.centring import centre
from glotfuse.config import EncoderConfig, LMConfig, Recipe
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.fusion import MIXERS, PROJECTORS
from glotfuse.inputs import PreparedExample
from glotfuse.kept_states import keeping_states
from glotfuse.model import FusedLM
from glotfuse.objectives import OBJECTIVES
from glotfuse.probe_training import fit_probe, weigh
from glotfuse.progress import Bar, console
from glotfuse.provenance import command_line, hardware, versions
from glotfuse.recipes import recipe_from_dict, to_dict
from glotfuse.run_data import RunRows, as_text, input_reader, label_of, load_rows, task_of
from glotfuse.tasks import Example, Task, sample
from glotfuse.tracking import check_trackers

RECIPE, STATE = "recipe.json", "state"
_CENTRING_TEXTS = 2000


def load_backbones(recipe: Recipe) -> tuple[Encoder, LM]:
    """Loads the recipe's encoder and LM."""
    start_processes(recipe)
    console.print(f"Loading {recipe.encoder.name} and {recipe.lm.name}", style="dim", highlight=False)
    encoder, lm = load_run_encoder(recipe), load_lm(recipe.lm.name, backbone_options(recipe.lm, recipe.device))
    if recipe.lm.sharded and distributed.world_size() > 1:
        lm.shard()
    return encoder, lm


def load_run_encoder(recipe: Recipe) -> Encoder:
    """Loads the recipe's encoder alone."""
    return load_encoder(
        recipe.encoder.name,
        backbone_options(recipe.encoder, recipe.device),
        prefix=recipe.encoder.prefix,
        src_lang=recipe.encoder.src_lang,
    )


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
    """
    started = time.monotonic()
    MIXERS.check(recipe.fusion.mixer, recipe.fusion.mixer_options)  # before minutes of loading
    PROJECTORS.check(recipe.fusion.projector, recipe.fusion.projector_options)
    check_trackers(recipe.training.report_to)
    stages.check(recipe)
    if recipe.prompt.include_span and recipe.fusion.boundary == "none":
        raise ConfigError(
            "Expected fusion.boundary zeros or normal, which ends the span; found none. It is for an LM that reads the "
            "text itself: set prompt.include_span to false too."
        )
    if recipe.lm.sharded and recipe.training.precision != "float32":
        raise ConfigError(
            f"Expected training.precision float32 with lm.sharded; found {recipe.training.precision}. Set lm.dtype to "
            "it instead, or lm.sharded to false."
        )
    start_processes(recipe)
    distributed.share_of_batch(recipe.training.batch_size)
    task = task_of(recipe.task)
    distributed.once(lambda: _claim(folder, recipe, overwrite))
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
    start, lm, stage_records = stages.earlier(recipe, folder, encoder, lm, train_run)
    set_seed(recipe.training.seed)
    model = build_model(
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
    if start is not None:
        stages.hand_over(model, start)
    views = Views(model, recipe, [*rows.train, *rows.dev]) if wants_views(recipe) else None
    train_examples, dev = prepare_examples(model, task, recipe, rows, views)
    resuming = distributed.once(lambda: training.last_state(folder / STATE)) is not None
    with keeping_states(model, recipe, [*train_examples, *dev.examples]):
        alignment = None
        if not resuming and start is None:
            distributed.once(lambda: _centre(model, train_examples))
            alignment = distributed.once(lambda: _warm_start(model, task, recipe, rows.train))
        distributed.share_weights(model.fusion)
        outcome = _train(model, recipe, folder, train_examples, dev if dev.examples else None)
    probe = _probe(model, task, recipe, rows, views) if recipe.probe.kind != "none" else None
    record = {
        **_record(recipe, rows, started),
        **({"probe": probe} if probe else {}),
        "num_truncated": sum(e.truncated for e in train_examples),
        "warm_start": alignment,
        **({"stages": stage_records} if stage_records else {}),
        "num_steps": outcome.num_steps,
        "best_step": outcome.best_step,
        "best_development_figure": outcome.best_metric,
        "log": outcome.log,
    }

    def finish() -> None:
        checkpoint.save(model, folder, record)
        training.discard_state(folder / STATE)

    distributed.once(finish)
    return model


def start_processes(recipe: Recipe) -> None:
    """Joins the processes that a launcher started, if any, before a recipe's models are loaded.

    Raises:
        ConfigError: The recipe's device is not for several processes.
    """
    if distributed.launched() and recipe.device not in ("auto", "cuda", "cpu"):
        raise ConfigError(
            f"Expected a device of auto, cuda or cpu where several processes run, each on a device of its own; found "
            f"{recipe.device!r}."
        )
    distributed.start(cpu=resolve_device(recipe.device).type == "cpu")


def _train(
    model: FusedLM,
    recipe: Recipe,
    folder: Path,
    examples: Sequence[PreparedExample],
    dev: training.DevExamples | None,
) -> training.TrainingOutcome:
    options = asdict(recipe.training)
    for key in ("cut", "max_answer_tokens"):
        options.pop(key)
    if not recipe.training.epochs or not any(p.requires_grad for p in model.parameters()):
        model.eval()
        return training.TrainingOutcome(0, None, None, [])
    if wants_views(recipe):
        options["epochs"] /= math.ceil(recipe.training.epochs)  # the examples are those of all epochs
    batch_size = recipe.evaluation.batch_size
    options["adapter_learning_rate"] = recipe.adapter.learning_rate
    return training.train(model, examples, dev, folder / STATE, eval_batch_size=batch_size, **options)


def _probe(model: FusedLM, task: Task, recipe: Recipe, rows: RunRows, views: Views | None) -> dict[str, Any]:
    """Fits the probe, weighs it against the trained LM, and gives it to the model; returns what was chosen."""
    train = probe_rows(model, task, recipe, rows.train, views, dev=False)
    dev = probe_rows(model, task, recipe, rows.dev, views, dev=True) if rows.dev else None
    probe, chosen = fit_probe(model, train, dev, seed=recipe.training.seed)
    if dev is not None:
        probe, figures = weigh(model, probe, dev, recipe.evaluation.batch_size)
        chosen = {**chosen, **figures}
    model.probe = probe
    return chosen


def _train_embedding(recipe: Recipe, folder: Path, task: Task, rows: RunRows, encoder: Encoder) -> None:
    started = time.monotonic()
    if not task.labels:
        raise ConfigError(f"Expected a task with labels for the method 'embedding'; {task.name} has unlabelled text.")
    train, dev = (
        ([row.fields for row in part], [label_of(row) for row in part]) if part else None
        for part in (rows.train, rows.dev)
    )
    assert train is not None
    classifier, chosen = embedding.fit(
        encoder,
        input_reader(task, encoder, recipe.encoder.max_length),
        task.labels,
        train,
        dev,
        language=task.train_language,
        seed=recipe.training.seed,
    )
    record = {**_record(recipe, rows, started), "chosen": chosen, "log": []}
    content = (json.dumps(record, ensure_ascii=False, indent=2) + "\n").encode("utf8")
    distributed.once(lambda: embedding.save(classifier, folder, {checkpoint.RECORD: content}))


def _record(recipe: Recipe, rows: RunRows, started: float) -> dict[str, Any]:
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


def trained(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    return any((folder / name).exists() for name in (checkpoint.CONFIG, embedding.CONFIG))


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a finished run of this very recipe, whatever is to be measured on it."""
    if not trained(folder) or not (folder / RECIPE).exists():
        return False
    return replace(read_recipe(folder), evaluation=recipe.evaluation, device=recipe.device) == recipe


def backbone_options(config: EncoderConfig | LMConfig, device: str) -> BackboneOptions:
    """How a recipe wants a backbone loaded."""
    options = BackboneOptions(
        config.revision, config.dtype, device, config.attn_implementation, device_map=config.device_map
    )
    if isinstance(config, LMConfig):
        return replace(options, quantization=config.quantization, gguf_file=config.gguf_file)
    return options


def _centre(model: FusedLM, examples: Sequence[PreparedExample]) -> None:
    if not model.fusion.reads_encoder or model.fusion.centring is None:
        return
    every = math.ceil(len(examples) / _CENTRING_TEXTS)  # from all over the data, which may be sorted
    chosen = [example.encoder_ids for example in examples[::every]]
    with Bar("centring", len(chosen)) as bar:
        centre(model, chosen, bar.advance)


def _warm_start(model: FusedLM, task: Task, recipe: Recipe, rows: Sequence[Example]) -> dict[str, Any] | None:
    if recipe.fusion.warm_start == "none" or not model.fusion.reads_encoder:
        return None
    chosen = list(rows)
    if len(chosen) > recipe.fusion.warm_start_texts:
        chosen = sample(chosen, recipe.fusion.warm_start_texts, recipe.training.seed)
    texts = [model.reader.template.format_map(row.fields) for row in chosen]
    with Bar("warm start", len(texts)) as bar:
        done = 0

        def advance(now: int, _: int) -> None:
            nonlocal done
            bar.advance(now - done)
            done = now

        # whole documents are read here alone, and training keeps the states of their first parts
        with model.reading_states(None) if task.label_column is None else nullcontext():
            return asdict(align(model, texts, language=task.train_language, progress=advance))


def _claim(folder: Path, recipe: Recipe, overwrite: bool) -> None:
    """Makes the folder this run's own, or says whose it is."""
    recipe_file = folder / RECIPE
    values = json.loads(json.dumps(to_dict(recipe)))
    if overwrite and folder.exists():
        training.discard_state(folder / STATE)
        for name in (
            checkpoint.CONFIG,
            checkpoint.WEIGHTS,
            checkpoint.PROBE,
            checkpoint.RECORD,
            embedding.CONFIG,
            embedding.WEIGHTS,
        ):
            (folder / name).unlink(missing_ok=True)
        for name in (stages.STAGES, checkpoint.ADAPTER):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif trained(folder):
        raise CheckpointError(
            f"Expected a new folder for this run; {folder} holds a finished one. Choose another with --out, "
            "measure it with `glotfuse eval`, or replace it with --overwrite."
        )
    elif any((folder / name).exists() for name in (STATE, stages.STAGES)) and recipe_file.exists():
        other = json.loads(recipe_file.read_text("utf8"))
        different = _differences(other, values)
        if different:
            raise CheckpointError(
                f"Expected the interrupted run in {folder} to have the same recipe; it differs in "
                f"{', '.join(different)}. Choose another folder with --out, or start anew with --overwrite."
            )
        console.print(f"Going on with the interrupted run in {folder}", style="yellow")
    checkpoint.write_files(folder, {RECIPE: (json.dumps(values, indent=2) + "\n").encode()})


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        CheckpointError: It has none.
    """
    path = folder / RECIPE
    try:
        return recipe_from_dict(json.loads(path.read_text("utf8")), str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"Expected a run folder with {RECIPE}; found none to read in {folder} ({type(error).__name__}). "
            "Give the folder that `glotfuse train` wrote, or name a task with --task."
        ) from None


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found
