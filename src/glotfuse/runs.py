"""A run: from a recipe to a trained checkpoint in a folder.

The folder holds the checkpoint, `recipe.json`, while training the Trainer's state in `state/`, and after evaluation
the report and the predictions.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from glotfuse import __version__, checkpoint, training
from glotfuse.alignment import align
from glotfuse.assembly import build_model
from glotfuse.backbones import LM, BackboneOptions, Encoder, cache_dir, load_encoder, load_lm
from glotfuse.config import EncoderConfig, LMConfig, Recipe, TaskConfig
from glotfuse.continuation import prepare_continuations
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.features import STORES, FeatureCache, FeatureCacheError
from glotfuse.fusion import MIXERS, PROJECTORS
from glotfuse.inputs import PreparedExample, prepare
from glotfuse.model import FusedLM
from glotfuse.progress import Bar, console
from glotfuse.recipes import recipe_from_dict, to_dict
from glotfuse.tasks import Example, LoadReport, Task, get_task, sample, task_from_files

RECIPE, STATE = "recipe.json", "state"
_CPU_CACHE_GB = 20.0


def load_backbones(recipe: Recipe) -> tuple[Encoder, LM]:
    """Loads the recipe's encoder and LM."""
    console.print(f"Loading {recipe.encoder.name} and {recipe.lm.name}", style="dim", highlight=False)
    encoder = load_encoder(
        recipe.encoder.name,
        _options(recipe.encoder, recipe.device),
        prefix=recipe.encoder.prefix,
        src_lang=recipe.encoder.src_lang,
    )
    return encoder, load_lm(recipe.lm.name, _options(recipe.lm, recipe.device))


def task_of(config: TaskConfig) -> Task:
    """Builds the task that a recipe names.

    Raises:
        ConfigError: Its options do not fit together.
        DataError: Its files cannot be read.
    """
    values = {
        "text_columns": config.text_columns,
        "template": config.template,
        "instruction": config.instruction,
        "train_language": config.train_language,
        "on_invalid_row": config.on_invalid_row,
    }
    given: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if config.name != "files":
        for key in ("label_column", "label_words"):
            if getattr(config, key) is not None:
                given[key] = getattr(config, key)
        return get_task(config.name, path=config.path, language_column=config.language_column, **given)
    if config.path is None:
        raise ConfigError("Expected task.path for the task 'files'; found none. Name your folder or file there.")
    return task_from_files(
        config.path,
        label_column=config.label_column,
        labels=config.label_words,
        language_column=config.language_column,
        **given,
    )


def train_run(
    recipe: Recipe, folder: Path, *, overwrite: bool = False, backbones: tuple[Encoder, LM] | None = None
) -> FusedLM:
    """Trains what a recipe describes and saves the checkpoint.

    An interrupted run of the same recipe in the same folder goes on from its saved state.

    Args:
        recipe: The run.
        folder: Where it is saved.
        overwrite: Whether a finished or different run in the folder may be replaced.
        backbones: Already loaded ones, to share between runs.

    Raises:
        CheckpointError: The folder holds another run.
        TrainingInterruptedError: The user pressed Ctrl-C; the state is saved.
    """
    started = time.monotonic()
    MIXERS.check(recipe.fusion.mixer, recipe.fusion.mixer_options)  # before minutes of loading
    PROJECTORS.check(recipe.fusion.projector, recipe.fusion.projector_options)
    task = task_of(recipe.task)
    _claim(folder, recipe, overwrite)
    train_rows, dev_rows, reports = _load_rows(task, recipe)
    encoder, lm = backbones or load_backbones(recipe)
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
    train_examples = _prepare(model, task, recipe, train_rows)
    dev_examples = _prepare(model, task, recipe, dev_rows) if dev_rows else []
    resuming = training.last_state(folder / STATE) is not None
    dev = training.DevExamples(dev_examples, [_label(row) for row in dev_rows] if task.labels else [])
    options = asdict(recipe.training)
    for key in ("cut", "max_answer_tokens"):
        options.pop(key)
    with _keeping_states(model, recipe, [*train_examples, *dev_examples]):
        alignment = None if resuming else _warm_start(model, task, recipe, train_rows)
        outcome = training.train(
            model,
            train_examples,
            dev if dev_examples else None,
            folder / STATE,
            eval_batch_size=recipe.evaluation.batch_size,
            **options,
        )
    record = {
        "recipe": to_dict(recipe),
        "data": [asdict(report) for report in reports],
        "num_train_examples": len(train_examples),
        "num_truncated": sum(e.truncated for e in train_examples),
        "warm_start": alignment,
        "num_steps": outcome.num_steps,
        "best_step": outcome.best_step,
        "best_development_figure": outcome.best_metric,
        "seconds": round(time.monotonic() - started, 1),
        "versions": {
            "glotfuse": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "log": outcome.log,
    }
    checkpoint.save(model, folder, record)
    training.discard_state(folder / STATE)
    return model


def _options(config: EncoderConfig | LMConfig, device: str) -> BackboneOptions:
    return BackboneOptions(config.revision, config.dtype, device, config.attn_implementation)


def _load_rows(task: Task, recipe: Recipe) -> tuple[list[Example], list[Example], list[LoadReport]]:
    """English training and development rows, subsampled where asked for, with what was found in the files."""
    seed, reports = recipe.training.seed, []
    train = task.load("train", task.train_language)
    reports.append(train.report)
    rows = train.examples
    if recipe.task.max_train_examples:
        rows = sample(rows, recipe.task.max_train_examples, seed)
    dev_rows: list[Example] = []
    if task.languages("dev"):
        dev = task.load("dev", task.train_language)
        reports.append(dev.report)
        dev_rows = dev.examples
        if recipe.task.max_dev_examples:
            dev_rows = sample(dev_rows, recipe.task.max_dev_examples, seed)
    else:
        console.print(
            f"{task.name} has no development data in {task.train_language}: the last checkpoint is kept.",
            style="yellow",
        )
    for report in reports:
        if report.dropped or report.duplicates:
            console.print(report.summary(), style="yellow", highlight=False)
    return rows, dev_rows, reports


def _prepare(model: FusedLM, task: Task, recipe: Recipe, rows: Sequence[Example]) -> list[PreparedExample]:
    config, reader, prompt = recipe.training, model.reader, model.prompt
    if task.label_column is None:
        texts = [row.fields[task.cut_column] for row in rows]
        found = prepare_continuations(
            reader,
            prompt,
            texts,
            cut=config.cut,
            max_answer_tokens=config.max_answer_tokens,
            seed=config.seed,
        )
        if found.num_short:
            console.print(f"{found.num_short} of {len(texts)} documents are too short to cut.", style="yellow")
        prepared = found.examples
    else:
        answers = [_label(row) for row in rows]
        prepared = prepare(reader, prompt, [row.fields for row in rows], answers=answers, language=task.train_language)
    num_cut = sum(example.truncated for example in prepared)
    if num_cut:
        console.print(f"{num_cut} of {len(prepared)} texts were cut to {reader.max_length} tokens.", style="yellow")
    return prepared


@contextmanager
def _keeping_states(model: FusedLM, recipe: Recipe, examples: Sequence[PreparedExample]) -> Iterator[None]:
    """Keeps the encoder's states on the disk while the model is trained, where they fit the budget."""
    gigabytes = recipe.encoder.cache_gb
    if gigabytes is None:
        gigabytes = _CPU_CACHE_GB if model.encoder.device.type == "cpu" else 0.0
    with ExitStack() as stack:
        if gigabytes:
            try:
                cache = FeatureCache(
                    model.encoder, model.fusion.mixer.layers, cache_dir() / STORES, int(gigabytes * 1e9)
                )
                stack.enter_context(cache)
                cache.make_room([example.encoder_ids for example in examples])
                stack.enter_context(model.reading_states(cache))
            except FeatureCacheError as reason:
                console.print(f"Encoder states are computed anew every epoch: {reason}.", style="yellow")
        yield


def _label(row: Example) -> str:
    assert row.label is not None, "labelled tasks drop or refuse rows without label"
    return row.label


def _warm_start(model: FusedLM, task: Task, recipe: Recipe, rows: Sequence[Example]) -> dict[str, Any] | None:
    if recipe.fusion.warm_start == "none":
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
        for name in (checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.RECORD):
            (folder / name).unlink(missing_ok=True)
    elif (folder / checkpoint.CONFIG).exists():
        raise CheckpointError(
            f"Expected a new folder for this run; {folder} holds a finished one. Choose another with --out, "
            "measure it with `glotfuse eval`, or replace it with --overwrite."
        )
    elif (folder / STATE).exists() and recipe_file.exists():
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


def with_evaluation(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other evaluation settings where a value is given."""
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(recipe, evaluation=replace(recipe.evaluation, **given))


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found
