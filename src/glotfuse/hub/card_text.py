"""Sentences of the model card: languages, data, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from glotfuse.evaluation.report import EvaluationReport
from glotfuse.evaluation.unknown_tokens import unknown_warning
from glotfuse.languages.facts import seen_by
from glotfuse.languages.names import is_english, known_languages, name_of

_SMALL_TEST, _SMALL_TRAIN = 200, 1000
_PATH_KEYS = ("name", "path", "gguf_file")


def shown_path(name: str) -> str:
    """A local file or folder without the path that leads there."""
    return f"`{PurePath(name.rstrip('/')).name}` (a local {'file' if name.endswith('.gguf') else 'folder'})"


def without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in which files and folders of this machine are named without the path that leads there."""

    def clean(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {inner: clean(inner, each) for inner, each in value.items() if each is not None}
        if isinstance(value, list | tuple):
            return [clean(key, each) for each in value]
        is_path = key in _PATH_KEYS and isinstance(value, str) and (value.startswith((".", "/", "~")) or ":\\" in value)
        return PurePath(value.rstrip("/")).name if is_path else value

    return {key: clean(key, value) for key, value in recipe.items() if value is not None}


def languages_text(encoder: str, measured: Sequence[str]) -> str:
    """Which languages the encoder's authors say it was pretrained on, of those that were measured."""
    seen: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    codes = list(measured) or [language.code for language in known_languages()]
    for code in codes:
        seen[seen_by(encoder, code)].append(name_of(code))
    if not seen[True] and not seen[False]:
        return "Which languages the encoder was pretrained on is not known here: look at its own card."
    scope = f"the {len(codes)} languages that were measured" if measured else f"{len(codes)} known languages"
    lines = [f"Of {scope}, the encoder was pretrained on {len(seen[True])}, as its authors list: {_named(seen[True])}."]
    if seen[False]:
        lines.append(f"Not in that list: {_named(seen[False])}.")
    if seen[None]:
        lines.append(f"Not settled by it: {_named(seen[None])}.")
    lines.append("Languages that the encoder has not seen are read badly; others that it has seen may work unmeasured.")
    return "\n\n".join(lines)


def data_text(record: Mapping[str, Any], dataset: str | None) -> str:
    """What it was trained on."""
    if not record:
        return "The training record is not with this checkpoint."
    origin = f"`{dataset}` or a copy of it" if dataset else "own files"
    task = record.get("recipe", {}).get("task", {}).get("name")
    origin = "the sentences in the glotfuse package" if task == "quickstart" else origin
    dropped = sum(part["rows"] - part["kept"] for part in record.get("data", []))
    numbers = (record.get(f"num_{part}_examples", 0) for part in ("train", "dev"))
    text = "Trained on {} rows and chosen by {}, in one language, from {}.".format(*numbers, origin)
    return text + (f" {dropped} rows were left out as empty, malformed or repeated." if dropped else "")


def limits(
    config: Mapping[str, Any], record: Mapping[str, Any], report: EvaluationReport | None, notes: Sequence[str]
) -> list[str]:
    """What speaks against relying on it, as far as the files tell."""
    found = [f"Texts are cut to {config['max_length']} encoder tokens, which is fewer words in low-resource languages."]
    num_train = record.get("num_train_examples")
    if num_train and num_train < _SMALL_TRAIN:
        found.append(f"Little training data: {num_train} rows.")
    found += [f"A backbone has {note}." if note.startswith("weights") else f"{note.capitalize()}." for note in notes]
    if record.get("num_truncated"):
        found.append(f"Training texts that were cut: {record['num_truncated']}.")
    if report is None:
        return [*found, "It has not been measured: nothing is known of how well it works."]
    results = report.results
    smallest = min((result.num_examples for result in results), default=0)
    if 0 < smallest < _SMALL_TEST:
        found.append(f"Measured on few rows (from {smallest} per language): mind the intervals.")
    for key, what in (("num_truncated", "texts that were cut"), ("num_invalid", "answers that were no label")):
        counts = [(result, getattr(result, key)) for result in results if getattr(result, key)]
        if counts:
            places = ", ".join(f"{name_of(result.language)} {count}" for result, count in counts)
            found.append(f"Measured {what}: {sum(count for _, count in counts)} ({places}).")
    if warning := unknown_warning(results):
        found.append(warning)
    if not any(result.num_truncated or result.num_invalid for result in results):
        found.append("No measured text was cut, and no answer was invalid.")
    leaks = [*record.get("leaks", []), *_leaks(report)]
    found += [f"Leak: {_leak_text(leak)}" for leak in leaks]
    if not leaks and report.metadata.get("leaks_checked"):
        found.append("No leak was found between what taught and what was measured (repeated rows, other scripts).")
    elif not report.metadata.get("leaks_checked"):
        found.append("Whether measured rows were in the training data has not been checked.")
    if report.missing_languages:
        found.append(f"No data for {_named([name_of(code) for code in report.missing_languages])}.")
    if len(results) > 1 and any(is_english(result.language) for result in results):
        found.append("Other languages than English are worse in most cases: look at the row of yours.")
    return found


def _leaks(report: EvaluationReport) -> list[Any]:
    leaks = report.metadata.get("leaks", [])
    return list(leaks) if isinstance(leaks, list) else []


def _leak_text(leak: Any) -> str:
    if not isinstance(leak, Mapping):
        return str(leak)
    rows = f"{leak['count']} of {leak['total']} rows; " if leak.get("total") else ""
    return f"{leak['kind']}, {name_of(leak['language'])}: {rows}{leak['advice']}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
