"""Tasks by name, and tasks from the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from glotfuse.errors import ConfigError, DataError, did_you_mean
from glotfuse.tasks.files import FileSource
from glotfuse.tasks.hub import HubSource
from glotfuse.tasks.named import NAMED_TASKS
from glotfuse.tasks.rows import NUM_SHOWN, Fault, Problem, look, read_name, shortened
from glotfuse.tasks.splits import Source
from glotfuse.tasks.task import Task

Files = str | Path | Mapping[str, str | Path | Mapping[str, str | Path]]
"""A folder of an accepted layout; a file, which is then the train split; or, for each split, a file or a
mapping from language to file."""


def task_names() -> list[str]:
    """Returns the names `get_task` knows."""
    return list(NAMED_TASKS)


def get_task(name: str, *, path: Files | None = None, language_column: str | None = None, **overrides: Any) -> Task:
    """Returns a named task.

    Args:
        name: One of `task_names()`.
        path: Local copy of the data; None for the usual source. Either files with the task's column names and raw
            labels, or a folder with the task's hub repositories as they were downloaded, each in owner/name.
        language_column: Column with the language of each row, in local files that hold several languages.
        overrides: Values for fields of `Task`, for example `instruction` or `on_invalid_row`.

    Raises:
        ConfigError: If the name or an override is unknown, or the overrides do not fit together.

    Example:
        >>> task = get_task("quickstart")
        >>> task.labels[:3], len(task.languages("test"))
        (['sports', 'health', 'politics'], 14)
    """
    if name not in NAMED_TASKS:
        raise ConfigError(
            f"task: expected one of {', '.join(NAMED_TASKS)}, found {name!r}."
            f"{did_you_mean(name, NAMED_TASKS)} For your own files, use task_from_files."
        )
    known = [field.name for field in fields(Task)]
    for key in overrides:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(f"task {name}: expected options among {', '.join(known)}, found {key!r}.{hint}")
    named = NAMED_TASKS[name]
    task = named.build()
    if path is not None:
        if "source" in overrides:
            raise ConfigError(f"task {name}: expected either path or source, found both. Leave one out.")
        task = replace(task, source=_local_source(task, path, language_column, overrides, named.aliases))
    elif language_column is not None:
        raise ConfigError(f"task {name}: expected language_column only with path. Set path, or leave it out.")
    return replace(task, **overrides)


def task_from_files(
    path: Files,
    *,
    text_columns: Sequence[str] = ("text",),
    label_column: str | None = "label",
    labels: Sequence[str] | Mapping[str, str] | None = None,
    template: str | None = None,
    instruction: str | None = None,
    cut_column: str = "",
    language_column: str | None = None,
    train_language: str = "eng_Latn",
    target_languages: Sequence[str] | None = None,
    on_invalid_row: Literal["error", "skip"] = "error",
    name: str | None = None,
) -> Task:
    """Returns a task that reads the user's own files.

    They are .tsv, .csv, .jsonl, .json or .parquet files, or .txt (one document a line) for unlabelled text; text
    may be packed with gzip (.csv.gz).

    Args:
        path: Folder, file, or files by split; see `Files`.
        text_columns: Columns with the texts.
        label_column: Column with the answer; None for unlabelled text.
        labels: Label words, or a map from raw labels to words. None: the labels of the training split,
            sorted; so a misspelt label is found only where `labels` is given.
        template: What the encoder reads. None: the text, or `Column: {column}` for each of several columns.
        instruction: English instruction, with `{labels}` for the label words. None: a general one.
        cut_column: Text column that is shortened when a text is too long; '' for the first.
        language_column: Column with the language of each row, in files that hold several languages.
        train_language: Language of the train and dev splits, and of files that name no language.
        target_languages: Languages to evaluate on; None for all that have data.
        on_invalid_row: 'error', or 'skip' to leave faulty rows out and count them.
        name: Name in reports; None for the name of the folder or file.

    Raises:
        ConfigError: If the values do not fit together.
        DataError: If `labels` is None and the training split cannot be read.

    Example:
        >>> task = task_from_files("data", text_columns=["premise", "hypothesis"])  # doctest: +SKIP
        >>> task.load("test", "sin_Sinh").examples[0].fields["premise"]  # doctest: +SKIP
    """
    plain_text = label_column is None and len(text_columns) == 1
    source = _file_source(path, language_column, train_language, {}, plain_text)
    words: Mapping[str, str] = {}
    if isinstance(labels, Mapping):
        words = {str(raw): word for raw, word in labels.items()}
    elif labels is not None:
        words = {str(label): str(label) for label in labels}
    elif label_column is not None:
        words = {label: label for label in _training_labels(source, label_column, train_language)}
    if template is None and len(text_columns) == 1:
        template = f"{{{text_columns[0]}}}"
    elif template is None:
        template = " ".join(f"{column.capitalize()}: {{{column}}}" for column in text_columns)
    if instruction is None:
        instruction = "Which label fits this text? Answer with one of: {labels}." if label_column else ""
    return Task(
        name or (Path(path).stem if isinstance(path, (str, Path)) else "files"),
        source,
        text_columns=text_columns,
        label_column=label_column,
        label_words=words,
        template=template,
        instruction=instruction,
        cut_column=cut_column,
        train_language=train_language,
        target_languages=target_languages,
        on_invalid_row=on_invalid_row,
    )


def _local_source(
    task: Task, path: Files, language_column: str | None, overrides: Mapping[str, Any], aliases: Mapping[str, str]
) -> Source:
    if isinstance(path, (str, Path)) and isinstance(task.source, HubSource) and task.source.lies_in(Path(path)):
        if language_column is not None:
            raise ConfigError(
                f"task {task.name}: expected no language_column for hub repositories in {path}, found "
                f"{language_column!r}. Leave it out."
            )
        return task.source.at(Path(path))
    language = overrides.get("train_language", task.train_language)
    return _file_source(path, language_column, language, aliases)


def _file_source(
    path: Files,
    language_column: str | None,
    default_language: str,
    aliases: Mapping[str, str],
    plain_text: bool = False,
) -> FileSource:
    if isinstance(path, (str, Path)):
        return FileSource(Path(path), {}, language_column, default_language, aliases, plain_text)
    files = {
        split: {language: Path(file) for language, file in value.items()} if isinstance(value, Mapping) else Path(value)
        for split, value in path.items()
    }
    return FileSource(None, files, language_column, default_language, aliases, plain_text)


def _training_labels(source: FileSource, column: str, language: str) -> list[str]:
    """Returns the labels of the training split: as numbers if all are, otherwise by alphabet."""
    if language not in source.languages("train"):
        raise DataError(
            f"labels: expected a training split in {language} to take the labels from, found none: "
            f"{source.explain('train')}. Name the labels, or set train_language."
        )
    table = source.read("train", language, [column])
    table.require([column])
    found: dict[str, list[int]] = {}
    faults: list[str] = []
    for row in table.rows:
        if isinstance(row, Problem):
            faults.append(row.describe(table.name))
            continue
        label, problem = read_name(row, column, "a label", Fault.MISSING_LABEL)
        if problem:
            faults.append(problem.describe(table.name))
        else:
            found.setdefault(label, []).append(row.number)
    _check_found(f"{table.name}, column {column!r}", found, faults)
    if all(label.isdecimal() for label in found):
        return sorted(found, key=int)
    return sorted(found)


def _check_found(where: str, found: Mapping[str, Sequence[int]], faults: Sequence[str]) -> None:
    """Refuses labels of which two look alike, and less than two; `found` has the rows of each label.

    Raises:
        DataError: With the rows.
    """
    alike: dict[str, list[str]] = {}
    for label in found:
        alike.setdefault(look(label), []).append(label)
    twins = [labels for labels in alike.values() if len(labels) > 1]
    if twins:
        shown = "; ".join(" and ".join(f"{shortened(label)} ({_rows(found[label])})" for label in t) for t in twins[:5])
        raise DataError(
            f"{where}: expected labels that differ by more than case, width, blanks inside or invisible characters, "
            f"found {shown}. Write each label alike everywhere."
        )
    if not found and not faults:
        raise DataError(f"{where}: expected rows, found only a header. Add rows or remove the file.")
    if len(found) < 2:
        only = "".join(f": {shortened(label)} ({_rows(rows)})" for label, rows in found.items())
        shown = "".join(f"\n  {fault}" for fault in faults[:NUM_SHOWN])
        scope = f", and faults in {len(faults)} rows:{shown}\nCorrect them" if faults else ". Add rows of another label"
        raise DataError(
            f"{where}: expected at least two labels, found {len(found)}{only}{scope}, or name the labels with "
            "label_words."
        )


def _rows(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:3]))
    return f"row {listed}" if len(numbers) == 1 else f"{len(numbers)} rows: {listed}{', ...' if numbers[3:] else ''}"
