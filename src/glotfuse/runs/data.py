"""A run's task, and the rows that it trains on and chooses by."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from glotfuse.backbones import Encoder
from glotfuse.errors import ConfigError
from glotfuse.evaluation.leaks import Leak, foreign_rows
from glotfuse.inputs.reader import InputReader
from glotfuse.progress import console
from glotfuse.recipes.config import Recipe, TaskConfig
from glotfuse.tasks import Example, LoadReport, Task, get_task, sample, task_from_files
from glotfuse.training.objectives import OBJECTIVES

_SUBSET_SEED = 0  # of the rows chosen under a limit: every seed of a run trains on the same
_HELD_OUT, _MOST_HELD_OUT = 0.1, 200


@dataclass(frozen=True)
class RunRows:
    """Rows in the task's training language."""

    train: list[Example]
    """What is trained on."""
    dev: list[Example]
    """What chooses the checkpoint; empty where the task has none."""
    reports: list[LoadReport]
    """What was found in the files."""
    leaks: list[Leak] = field(default_factory=list)
    """What speaks against these rows being the training language alone."""


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


def input_reader(task: Task, encoder: Encoder, max_length: int) -> InputReader:
    """What turns the task's rows into encoder ids."""
    return InputReader(encoder, template=task.template, cut_column=task.cut_column, max_length=max_length)


def load_rows(task: Task, recipe: Recipe) -> RunRows:
    """Reads training and development rows, subsampled where asked for, and says what was left out."""
    limits = recipe.task
    train = task.load("train", task.train_language)
    reports, rows, dev_rows = [train.report], train.examples, []
    if limits.max_train_examples:
        rows = sample(rows, limits.max_train_examples, _SUBSET_SEED)
    if task.languages("dev"):
        dev = task.load("dev", task.train_language)
        reports.append(dev.report)
        dev_rows = dev.examples
        if limits.max_dev_examples:
            dev_rows = sample(dev_rows, limits.max_dev_examples, _SUBSET_SEED)
    else:
        console.print(
            f"{task.name} has no development data in {task.train_language}: the last checkpoint is kept.",
            style="yellow",
        )
    for report in reports:
        if report.dropped or report.duplicates:
            console.print(report.summary(), style="yellow", highlight=False)
        say_warnings(report)
    found = [foreign_rows(part, task.train_language) for part in (rows, dev_rows)]
    leaks = [leak for leak in found if leak]
    for leak in leaks:
        console.print(str(leak), style="yellow", highlight=False)
    return RunRows(rows, dev_rows, reports, leaks)


def say_warnings(report: LoadReport) -> None:
    """Prints what is strange about data that were read."""
    for warning in report.warnings:
        console.print(warning, style="yellow", highlight=False, markup=False)


def as_text(task: Task, rows: RunRows, objective: str) -> tuple[Task, RunRows]:
    """A run's rows as documents without labels, as an objective of `glotfuse.training.objectives` learns from them.

    Without development rows a tenth, at most 200, is held out, whatever the run's seed.
    """
    columns = OBJECTIVES[objective].columns
    missing = [column for column in columns if column not in task.text_columns]
    if missing:
        raise ConfigError(
            f"Expected the columns text, {', '.join(columns)} for the objective {objective!r}, named in "
            f"task.text_columns; found {', '.join(task.text_columns)}."
        )
    text = replace(
        task,
        text_columns=("text",),
        label_column=None,
        label_words={},
        template="{text}",
        instruction=OBJECTIVES[objective].instruction,
        cut_column="text",
    )
    train, dev = (
        [replace(row, fields=_document(task, row.fields, columns), label=None) for row in part]
        for part in (rows.train, rows.dev)
    )
    if not dev:
        random.Random(_SUBSET_SEED).shuffle(train)
        number = min(int(len(train) * _HELD_OUT), _MOST_HELD_OUT)
        dev, train = train[:number], train[number:]
    return text, replace(rows, train=train, dev=dev)


def _document(task: Task, fields: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """A row as a document: its text, and the columns that the objective reads beside it."""
    text = fields["text"] if columns else task.render(fields)
    return {"text": text, **{column: fields[column] for column in columns}}


def label_of(row: Example) -> str:
    """The label word of a row of a labelled task."""
    assert row.label is not None, "labelled tasks drop or refuse rows without label"
    return row.label
