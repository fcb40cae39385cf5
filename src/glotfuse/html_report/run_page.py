"""What the page of a run shows, read from its folder; see `glotfuse.run_folder` for what a run leaves there."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glotfuse.evaluation.report import EvaluationReport
from glotfuse.evaluation.unknown_tokens import unknown_warning
from glotfuse.html_report.charts import LineChart, line_chart
from glotfuse.html_report.formats import NOT_RECORDED, duration, language_tag, percent, plain, titled
from glotfuse.html_report.mistakes import LanguageMistakes, read_mistakes
from glotfuse.html_report.reading import choose_split
from glotfuse.languages.facts import groups_for
from glotfuse.languages.names import GROUPS, is_low_resource, name_of
from glotfuse.run_folder import (
    CONFIG,
    EMBEDDING_CONFIG,
    RECIPE,
    predictions_file,
    read_log,
    read_object,
    read_record,
    report_file,
)

Fact = tuple[str, str]

_SHOWN_ELSEWHERE = frozenset(
    ("recipe", "data", "log", "leaks", "leaks_checked", "versions", "seconds", "num_train_examples", "num_truncated")
)
_MOST_CHARACTERS = 300  # of a recorded value that the page does not know
_PROVENANCE = ("command", "started", "finished", "hardware", "host", "git_commit")


@dataclass(frozen=True)
class AverageRow:
    """Unweighted means over a group of languages, as fractions."""

    title: str
    num_languages: int
    accuracy: float
    macro_f1: float


def run_values(folder: Path, split: str | None, max_examples: int) -> dict[str, Any]:
    """Reads a run folder into the values of its template.

    Args:
        folder: The run.
        split: Split to show; None takes test, else the only one.
        max_examples: Most mistakes of each language.

    Raises:
        DataError: A file is damaged, or the split was not measured.
    """
    record = read_record(folder)
    config = read_object(folder / CONFIG) or read_object(folder / EMBEDDING_CONFIG)
    recipe = read_object(folder / RECIPE) or record.get("recipe") or {}
    chosen = choose_split(folder, split)
    report = EvaluationReport.load(report_file(folder, chosen)) if chosen else None
    metadata = dict(report.metadata) if report else {}
    mistakes = _mistakes(folder, report, max_examples)
    return {
        "title": report.run_name if report else folder.resolve().name,
        "folder": str(folder),
        "report": report,
        "figures": _figures(report, record),
        "averages": _averages(report),
        "setting": _setting(recipe, config, report),
        "recipe": _sections(recipe),
        "data": record.get("data"),
        "counts": _counts(record, metadata, report),
        "unknown_warning": unknown_warning(report.results) if report else None,
        "leaks": _leaks(record, metadata),
        "leaks_checked": bool(metadata.get("leaks_checked", "leaks" in metadata)),
        "charts": _charts(record.get("log") or read_log(folder), record.get("best_step")),
        "training": [(titled(k), _short(v)) for k, v in record.items() if k not in {*_SHOWN_ELSEWHERE, *_PROVENANCE}],
        "provenance": _provenance(record, metadata, recipe, config),
        "embedded": _embedded(report, mistakes),
        "num_examples": {m.code: (len(m.shown), m.num_wrong) for m in mistakes},
    }


def _leaks(*records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What training and measurement recorded as leaks, each once."""
    listed = [leak for record in records if isinstance(record.get("leaks"), list) for leak in record["leaks"]]
    leaks = [leak if isinstance(leak, dict) else {"kind": plain(leak)} for leak in listed]
    return [leak for number, leak in enumerate(leaks) if leak not in leaks[:number]]


def _short(value: object) -> str:
    text = plain(value)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"


def _figures(report: EvaluationReport | None, record: Mapping[str, Any]) -> list[Fact]:
    """The few numbers at the top of the page."""
    figures: list[Fact] = []
    if report:
        for group, average in report.averages.items():
            if average.num_languages:
                languages = "1 language" if average.num_languages == 1 else f"{average.num_languages} languages"
                figures.append((f"{GROUPS[group][0]} ({languages})", f"{percent(average.accuracy)}%"))
        worst = min(report.results, key=lambda result: result.accuracy.value, default=None)
        if worst is not None and len(report.results) > 1:
            figures.append((f"lowest: {name_of(worst.language)}", f"{percent(worst.accuracy.value)}%"))
    if "seconds" in record:
        figures.append(("training time", duration(record["seconds"])))
    return figures


def _averages(report: EvaluationReport | None) -> dict[str, list[AverageRow]]:
    """Averages over the `general` groups, with seen and unseen languages, and over `other` groups."""
    rows: dict[str, list[AverageRow]] = {"general": [], "other": []}
    by_code = {result.language: result for result in report.results} if report else {}
    for group in groups_for(by_code, str(report.metadata.get("encoder") or "") if report else ""):
        results = [by_code[code] for code in group.codes]
        accuracy = statistics.fmean(result.accuracy.value for result in results)
        macro_f1 = statistics.fmean(result.macro_f1.value for result in results)
        kind = "general" if group.kind in ("general", "encoder") else "other"
        rows[kind].append(AverageRow(group.title, len(results), accuracy, macro_f1))
    return rows


def _setting(recipe: Mapping[str, Any], config: Mapping[str, Any], report: EvaluationReport | None) -> list[Fact]:
    facts: list[Fact] = []
    if report:
        facts += [("Task", report.task), ("Split", report.split), ("Labels", plain(report.labels))]
        options = plain({key: value for key, value in report.mixer.items() if key != "name"})
        mixer = plain(report.mixer.get("name"))
        facts.append(("Mixer", mixer if options == "none" else f"{mixer} ({options})"))
    elif config:
        facts += [("Task", plain(config.get("task"))), ("Labels", plain(config.get("labels")))]
    if recipe.get("method"):
        facts.append(("Method", plain(recipe["method"])))
    for role, title in (("encoder", "Encoder (frozen)"), ("lm", "LM (frozen)")):
        backbone = config.get(role) or ({} if config else recipe.get(role) or {})
        name = backbone.get("name") or (report.metadata.get(role) if report else None)
        if not name:
            continue
        architecture = backbone.get("architecture")
        width = f", width {backbone['hidden_size']}" if "hidden_size" in backbone else ""
        facts.append((title, f"{name}{f' ({architecture}{width})' if architecture else ''}"))
    if config.get("instruction"):
        labels = plain(config.get("labels") or [])
        own = (config.get("prompt") or {}).get("instruction")
        facts.append(("Instruction", str(own or config["instruction"]).replace("{labels}", labels)))
    for key, title in (("template", "What the encoder reads"), ("max_length", "Most encoder tokens")):
        if key in config:
            facts.append((title, plain(config[key])))
    if (config.get("prompt") or {}).get("style"):
        facts.append(("Prompt style", plain(config["prompt"]["style"])))
    return facts


def _sections(recipe: Mapping[str, Any]) -> list[tuple[str, list[Fact]]]:
    """Every field of the recipe, by section; single values come first."""
    single = [(key, plain(value)) for key, value in recipe.items() if not isinstance(value, Mapping)]
    sections = [
        (key, [(name, plain(part)) for name, part in value.items()])
        for key, value in recipe.items()
        if isinstance(value, Mapping)
    ]
    return ([("run", single)] if single else []) + sections


def _counts(record: Mapping[str, Any], metadata: Mapping[str, Any], report: EvaluationReport | None) -> list[Fact]:
    facts = [
        ("Training examples used", plain(record.get("num_train_examples", NOT_RECORDED))),
        ("Training texts that were cut", plain(record.get("num_truncated", NOT_RECORDED))),
    ]
    if report:
        scored = sum(result.num_examples for result in report.results)
        cut = sum(result.num_truncated for result in report.results)
        invalid = sum(result.num_invalid for result in report.results)
        facts += [
            ("Examples measured", f"{scored} in {len(report.results)} languages"),
            ("Measured texts that were cut", plain(cut)),
            ("Answers without a label", plain(invalid)),
            ("Malformed rows left out of the measurement", plain(metadata.get("skipped_rows", NOT_RECORDED))),
        ]
        if report.missing_languages:
            facts.append(("Languages without data", ", ".join(map(name_of, report.missing_languages))))
    return facts


def _charts(entries: Sequence[Any], best: float | None) -> list[LineChart]:
    log = [entry for entry in entries if isinstance(entry, Mapping) and "step" in entry]

    def points(key: str) -> list[tuple[float, float]]:
        return [(float(entry["step"]), float(entry[key])) for entry in log if entry.get(key) is not None]

    charts = [
        line_chart(
            "Loss",
            [("training", "first", points("loss"), False), ("development", "second", points("eval_loss"), True)],
            mark=best,
        ),
        line_chart(
            "Development accuracy, %", [("development", "second", points("eval_accuracy"), True)],
            mark=best, as_percent=True,
        ),
    ]  # fmt: skip
    return [chart for chart in charts if chart]


def _provenance(
    record: Mapping[str, Any], metadata: Mapping[str, Any], recipe: Mapping[str, Any], config: Mapping[str, Any]
) -> list[Fact]:
    recorded = {**metadata, **record}
    facts = [(titled(key), plain(recorded.get(key, NOT_RECORDED))) for key in _PROVENANCE[:4]]
    facts += [(titled(key), plain(recorded[key])) for key in _PROVENANCE[4:] if key in recorded]
    facts.append(("Training time", duration(record.get("seconds"))))
    seed = recorded.get("seed", (recipe.get("training") or {}).get("seed"))
    facts.append(("Seed", NOT_RECORDED if seed is None else plain(seed)))
    versions = recorded.get("versions") or {}
    facts += [(f"Version of {name}", plain(version)) for name, version in versions.items()]
    if not versions:
        facts.append(("Versions", NOT_RECORDED))
    for role, name in (("encoder", "Encoder"), ("lm", "LM")):
        backbone = config.get(role) or {}
        if config and not backbone:
            continue
        facts.append((f"{name}, revision", plain(backbone.get("revision") or NOT_RECORDED)))
        facts.append((f"{name}, SHA-256 of weights", plain(backbone.get("sha256") or NOT_RECORDED)))
    weights = config.get("weights_sha256") or recorded.get("weights_sha256")
    facts.append(("Trained weights, SHA-256", plain(weights or NOT_RECORDED)))
    other = {*metadata} - {*_PROVENANCE, *_SHOWN_ELSEWHERE, "encoder", "lm", "weights_sha256", "skipped_rows", "seed"}
    facts += [(titled(key), _short(metadata[key])) for key in metadata if key in other]
    return facts


def _mistakes(folder: Path, report: EvaluationReport | None, most: int) -> list[LanguageMistakes]:
    if report is None:
        return []
    codes = [result.language for result in report.results]
    return [read_mistakes(predictions_file(folder, report.split, code), code, most) for code in codes]


def _embedded(report: EvaluationReport | None, mistakes: Sequence[LanguageMistakes]) -> dict[str, Any]:
    """What the page's script draws on demand: confusion matrices and mistakes."""
    if report is None:
        return {"labels": [], "languages": []}
    return {
        "labels": list(report.labels),
        "languages": [
            {
                "name": name_of(result.language),
                "tag": language_tag(result.language),
                "low_resource": is_low_resource(result.language),
                "confusion": result.confusion,
                **asdict(found),
            }
            for result, found in zip(report.results, mistakes, strict=True)
        ],
    }
