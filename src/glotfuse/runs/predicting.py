"""Measures a model: every language's examples labelled, saved as JSONL, and summed up in a report.

A language whose predictions are already on the disk for the same weights and settings is not labelled again, so an
interrupted evaluation goes on where it stopped. Of several processes each labels a share of every language's rows, and
the first one writes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from glotfuse import distributed
from glotfuse.backbones import Encoder
from glotfuse.backbones.encoder import special_ids
from glotfuse.errors import DataError, PromptError
from glotfuse.evaluation.leaks import TrainingTexts, check_languages
from glotfuse.evaluation.metrics import INVALID, LanguageResult, language_result
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.evaluation.unknown_tokens import unknown_warning
from glotfuse.files import write_file
from glotfuse.inputs.batch import PreparedExample
from glotfuse.model.classification import Classification
from glotfuse.progress import Bar, console
from glotfuse.run_folder import predictions_file
from glotfuse.runs.data import say_warnings
from glotfuse.tasks import Example, Task, sample
from glotfuse.training.data_parallel import spread

_SEED = 0  # of the rows chosen under max_examples: the same rows in every run and, in parallel data, every language


class Labeller(Protocol):
    """What can be measured: a `FusedLM` with labels, or the embedding baseline."""

    @property
    def encoder(self) -> Encoder:
        """What reads the texts."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was built with, as plain values."""

    def prepare(self, texts: Sequence[Any], language: str | None = None) -> list[PreparedExample]:
        """Checks and tokenizes inputs of one language."""

    def classify_prepared(self, examples: Sequence[PreparedExample], batch_size: int = 32) -> list[Classification]:
        """Labels them."""


def evaluate(
    model: Labeller,
    task: Task,
    folder: Path,
    *,
    run_name: str,
    weights_sha256: str,
    split: str = "test",
    languages: Sequence[str] | None = None,
    batch_size: int = 32,
    max_examples: int | None = None,
    learned: Sequence[Example] | None = None,
) -> EvaluationReport:
    """Labels every language of a task and saves predictions and report.

    Args:
        model: The model.
        task: The task.
        folder: Gets `predictions/<split>/<language>.jsonl` and `report-<split>.json` and `.md`.
        run_name: Shown in the report.
        weights_sha256: Of the fusion, to know whether saved predictions are this model's.
        split: `test` or `dev`.
        languages: Codes; None takes all that the task has.
        batch_size: Examples per forward pass.
        max_examples: At most so many per language, balanced over the labels.
        learned: Training and development rows, which no measured row should repeat; None where they are not at hand.

    Raises:
        DataError: The task has no labels, or a language has no data in this split.
    """
    if not task.labels:
        raise DataError(f"Expected a task with labels to measure; {task.name} has unlabelled text.")
    available = task.languages(split, evaluation=True)
    chosen = list(languages) if languages is not None else available
    task.check_measured(split, chosen)
    if not chosen:
        raise DataError(f"Expected {split} data of {task.name} in some language; found none.")
    key = _key(weights_sha256, task, max_examples)
    results, skipped = [], {}
    with Bar("evaluating", 0) as bar:
        loaded = {code: task.load(split, code, evaluation=True) for code in chosen}
        rows = {
            code: sample(found.examples, max_examples, _SEED) if max_examples else found.examples
            for code, found in loaded.items()
        }
        bar.extend(sum(len(examples) for examples in rows.values()))
        for code in chosen:
            path = predictions_file(folder, split, code)
            prepared = _prepared(model, code, rows[code])
            predictions = distributed.once(partial(_read, path, key, len(rows[code])))
            if predictions is None:
                predictions = _predict(model, code, rows[code], prepared, batch_size, bar)
                distributed.once(partial(_write, path, key, predictions))
            else:
                bar.extend(-len(predictions))
            results.append(_result(code, predictions, task.labels, _unknown_rate(model, code, prepared)))
            if loaded[code].report.dropped:
                skipped[code] = loaded[code].report.dropped
    for found in loaded.values():
        say_warnings(found.report)
    if skipped:
        console.print(f"Rows left out as malformed: {skipped}", style="yellow", highlight=False)
    if warning := unknown_warning(results):
        console.print(warning, style="yellow", highlight=False)
    report = EvaluationReport(
        run_name=run_name,
        task=task.name,
        split=split,
        mixer={"name": model.settings["fusion"]["mixer"], **model.settings["fusion"]["mixer_options"]},
        labels=tuple(task.labels),
        results=tuple(results),
        missing_languages=tuple(task.missing_languages(split)),
        metadata={
            "encoder": _name(model, "encoder"),
            "lm": _name(model, "lm"),
            "weights_sha256": weights_sha256,
            "skipped_rows": skipped,
            "leaks": _leaks(task, split, rows, learned),
            "leaks_checked": learned is not None,
            "max_examples": max_examples,
        },
    )
    distributed.once(lambda: report.save(folder, f"report-{split}"))
    return report


def _leaks(
    task: Task, split: str, rows: Mapping[str, Sequence[Example]], learned: Sequence[Example] | None
) -> list[dict[str, Any]]:
    """What makes scores look better than they are, said once and kept in the report."""
    found = check_languages(task, measured=list(rows), split=split)
    if learned is not None and split == "test":
        texts = TrainingTexts(learned)
        found += [leak for code, measured in rows.items() if (leak := texts.repeated(measured, code))]
    for leak in found:
        console.print(str(leak), style="yellow", highlight=False)
    return [asdict(leak) for leak in found]


def _name(model: Labeller, role: str) -> str | None:
    backbone = getattr(model, role, None)
    return str(backbone.identity.name) if backbone is not None else None


def _predict(
    model: Labeller,
    language: str,
    rows: Sequence[Example],
    prepared: Sequence[PreparedExample | None],
    batch_size: int,
    bar: Bar,
) -> list[dict[str, Any]]:
    """Labels rows, tokenized as in `_prepared`; a line for each."""
    valid = [i for i, example in enumerate(prepared) if example is not None]

    def classify(examples: Sequence[PreparedExample]) -> list[Classification]:
        found = []
        # Chunks of several batches keep the progress moving while each chunk is still sorted by length.
        for start in range(0, len(examples), 4 * batch_size):
            chunk = examples[start : start + 4 * batch_size]
            found += model.classify_prepared(chunk, batch_size)
            bar.advance(len(chunk), language)
        bar.advance(len(rows) - len(examples), language)  # invalid rows, and those of other processes
        return found

    results = spread(model, [example for example in prepared if example is not None], classify)
    found = dict(zip(valid, results, strict=True))
    return [_line(row, found.get(i)) for i, row in enumerate(rows)]


def _prepared(model: Labeller, language: str, rows: Sequence[Example]) -> list[PreparedExample | None]:
    """Tokenized rows; None for a row whose fixed parts alone do not fit, which counts as invalid and wrong."""
    try:
        return list(model.prepare([row.fields for row in rows], language))
    except PromptError:
        single: list[PreparedExample | None] = []
        for row in rows:
            try:
                single += model.prepare([row.fields], language)
            except PromptError as error:
                console.print(f"{row.source}, row {row.row}: {error}", style="yellow", highlight=False)
                single.append(None)
        return single


def _unknown_rate(model: Labeller, language: str, prepared: Sequence[PreparedExample | None]) -> float | None:
    """Unknown tokens among those that the encoder reads, special ones left out; None where it reads none."""
    if not model.settings.get("prompt", {}).get("include_span", True):  # the LM reads the plain text itself
        return None
    specials, unknown = special_ids(model.encoder, language), model.encoder.tokenizer.unk_token_id
    counts = Counter(token for example in prepared if example is not None for token in example.encoder_ids)
    total = sum(number for token, number in counts.items() if token not in specials)
    return counts[unknown] / total if total else None


def _line(row: Example, found: Classification | None) -> dict[str, Any]:
    return {
        "source": row.source,
        "row": row.row,
        **row.fields,
        "gold": row.label,
        "predicted": found.label if found else None,
        "probabilities": {k: round(v, 6) for k, v in found.probabilities.items()} if found else None,
        "truncated": bool(found and found.truncated),
    }


def _result(
    language: str, predictions: Sequence[Mapping[str, Any]], labels: Sequence[str], unknown_rate: float | None
) -> LanguageResult:
    index = {label: i for i, label in enumerate(labels)}
    return language_result(
        language,
        [index[line["gold"]] for line in predictions],
        [INVALID if line["predicted"] is None else index[line["predicted"]] for line in predictions],
        labels,
        num_truncated=sum(line["truncated"] for line in predictions),
        unknown_rate=unknown_rate,
    )


def _key(weights_sha256: str, task: Task, max_examples: int | None) -> str:
    described = f"{weights_sha256}|{task.name}|{task.labels}|{task.template}|{max_examples}"
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _write(path: Path, key: str, predictions: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps({"run": key, **line}, ensure_ascii=False) for line in predictions]
    write_file(path, "\n".join(lines) + "\n")


def _read(path: Path, key: str, num_rows: int) -> list[dict[str, Any]] | None:
    """Predictions of an earlier evaluation with the same key, None where there are none or not all."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
        mine = len(lines) == num_rows and all(line.pop("run") == key for line in lines)
        return lines if mine and all({"predicted", "gold", "truncated"} <= line.keys() for line in lines) else None
    except (OSError, ValueError, KeyError):
        return None
