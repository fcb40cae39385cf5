"""Recipes compared on the predictions of their runs: scores over seeds, paired tests, and a statement in words.

Legend: S seeds of a recipe, N rows of a language, K labels. Reads `predictions/<split>/<language>.jsonl` of run folders
and nothing else, so finished runs of any origin can be compared. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from glotfuse.errors import DataError
from glotfuse.evaluation.predictions import Answers, check_same_rows, read_answers, row_ids
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.evaluation.statement import statement
from glotfuse.evaluation.statistics import (
    PairedResult,
    accuracy_over_seeds,
    adjusted,
    average_over_seeds,
    compare_average,
    compare_language,
    macro_f1_over_seeds,
)
from glotfuse.languages.facts import LanguageGroup, family_of, groups_for, script_of, seen_by
from glotfuse.languages.names import is_english, is_low_resource, name_of
from glotfuse.run_folder import report_file

FORMAT = 1


@dataclass(frozen=True)
class Contestant:
    """One recipe with its finished, measured runs."""

    name: str
    """What tables call it."""
    runs: Sequence[Path]
    """Run folders, one for each seed."""
    seeds: Sequence[int] = ()
    """Their seeds."""
    seconds: Sequence[float | None] = ()
    """How long each was trained."""
    trained: bool = True
    """Whether anything is trained."""
    random: bool = True
    """Whether another seed would give another result; a recipe of which that is not so has one run."""


@dataclass(frozen=True)
class Comparison:
    """The result, as plain values that `comparison.json` holds; fractions, not percent."""

    task: str
    split: str
    labels: list[str]
    metadata: dict[str, Any]
    recipes: list[dict[str, Any]]
    languages: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    leaks: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """With the version of the layout."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Reads what `to_dict` gave.

        Raises:
            DataError: It is missing or of another layout.
        """
        try:
            values = json.loads(path.read_text("utf8"))
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"Expected a comparison in {path}; found: {error}. Run `glotfuse compare` again.") from None


def compare(contestants: Sequence[Contestant], split: str = "test") -> Comparison:
    """Compares recipes by their saved predictions, on the languages that all have.

    Args:
        contestants: Two recipes or more, of one task.
        split: test or dev.

    Raises:
        DataError: Fewer than two, different tasks or rows, or runs that were not measured.
    """
    names = [contestant.name for contestant in contestants]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"Expected two or more recipes with different names; found {', '.join(names) or 'none'}.")
    reports = {c.name: [EvaluationReport.load(report_file(run, split)) for run in c.runs] for c in contestants}
    first = reports[names[0]][0]
    _check_same_task(reports)
    measured = dict.fromkeys(r.language for found in reports.values() for report in found for r in report.results)
    shared = [code for code in measured if _all_have(reports, code)]
    if not shared:
        raise DataError(
            "Expected languages that all runs were measured on; found none. Measure them with `glotfuse eval`."
        )
    answers = {c.name: {code: read_answers(c.runs, split, code, first.labels) for code in shared} for c in contestants}
    for code in shared:
        check_same_rows(code, {name: found[code] for name, found in answers.items()})
    encoders = {str(report.metadata.get("encoder")) for runs in reports.values() for report in runs}
    encoder = encoders.pop() if len(encoders) == 1 else ""
    groups = groups_for(shared, encoder)
    rows = row_ids(answers[names[0]])
    languages = [_language(code, encoder, answers, len(first.labels)) for code in shared]
    return Comparison(
        task=first.task,
        split=split,
        labels=list(first.labels),
        metadata={
            "encoder": encoder,
            "lm": first.metadata.get("lm"),
            "parallel_rows": rows is not None,
            "left_out": [code for code in measured if code not in shared],
            "leaks_checked": all(r.metadata.get("leaks_checked") is True for found in reports.values() for r in found),
        },
        recipes=[
            {
                "name": c.name,
                "seeds": list(c.seeds) or list(range(len(c.runs))),
                "runs": [str(run) for run in c.runs],
                "seconds": list(c.seconds) or [None] * len(c.runs),
                "trained": c.trained,
                "random": c.random,
            }
            for c in contestants
        ],
        languages=languages,
        groups=[_group(group, answers, rows, languages) for group in groups],
        pairs=[
            _pair(a, b, answers, groups, rows, [c.name for c in (a, b) if c.random and len(c.runs) == 1])
            for a, b in combinations(contestants, 2)
        ],
        leaks=_listed(first.metadata.get("leaks")),
    )


def _listed(value: object) -> list[dict[str, Any]]:
    return list(value) if isinstance(value, list) else []


def _check_same_task(reports: Mapping[str, Sequence[EvaluationReport]]) -> None:
    found = {(r.task, r.split, r.labels) for runs in reports.values() for r in runs}
    if len(found) > 1:
        listed = "; ".join(sorted(f"{task}, {split}, {len(labels)} labels" for task, split, labels in found))
        raise DataError(f"Expected runs of one task, split and set of labels; found {listed}.")


def _all_have(reports: Mapping[str, Sequence[EvaluationReport]], code: str) -> bool:
    return all(code in {r.language for r in report.results} for runs in reports.values() for report in runs)


def _language(code: str, encoder: str, answers: Mapping[str, Mapping[str, Answers]], num_labels: int) -> dict[str, Any]:
    scores = {}
    for name, by_language in answers.items():
        found = by_language[code]
        scores[name] = {
            "accuracy": asdict(accuracy_over_seeds(found.correct)),
            "macro_f1": asdict(macro_f1_over_seeds(found.gold, found.predicted, num_labels)),
            "per_seed": found.correct.mean(axis=1).tolist(),
        }
    return {
        "code": code,
        "name": name_of(code),
        "script": script_of(code),
        "family": family_of(code),
        "low_resource": is_low_resource(code),
        "seen": seen_by(encoder, code),
        "num_examples": len(next(iter(answers.values()))[code].rows),
        "scores": scores,
    }


def _group(
    group: LanguageGroup,
    answers: Mapping[str, Mapping[str, Answers]],
    rows: Mapping[str, Sequence[int]] | None,
    languages: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    scores = {}
    for name, by_language in answers.items():
        found = [by_language[code] for code in group.codes]
        means = average_over_seeds([one.correct for one in found], _ids(group.codes, rows))
        f1 = [one["scores"][name]["macro_f1"]["value"] for one in languages if one["code"] in group.codes]
        scores[name] = {"accuracy": asdict(means), "macro_f1": float(np.mean(f1))}
    return {"title": group.title, "languages": list(group.codes), "scores": scores}


def _ids(codes: Sequence[str], rows: Mapping[str, Sequence[int]] | None) -> list[Sequence[int]] | None:
    return [rows[code] for code in codes] if rows is not None else None


def _pair(
    first: Contestant,
    second: Contestant,
    answers: Mapping[str, Mapping[str, Answers]],
    groups: Sequence[LanguageGroup],
    rows: Mapping[str, Sequence[int]] | None,
    trained_once: Sequence[str],
) -> dict[str, Any]:
    one, other = answers[first.name], answers[second.name]
    by_group = []
    for group in groups:
        found = compare_average(
            [one[code].correct for code in group.codes],
            [other[code].correct for code in group.codes],
            _ids(group.codes, rows),
        )
        by_group.append({"title": group.title, "num_languages": len(group.codes), **_plain(found)})
    by_language = [(code, compare_language(one[code].correct, other[code].correct)) for code in one]
    corrected = adjusted([found.p_value for _, found in by_language])
    languages = [
        {"code": code, **_plain(found), "p_adjusted": p}
        for (code, found), p in zip(by_language, corrected, strict=True)
    ]
    english = {
        contestant.name: float(found.correct.mean())
        for contestant in (first, second)
        for code, found in answers[contestant.name].items()
        if is_english(code)
    }
    main = next((group for group in by_group if group["title"] == "all but English"), by_group[0])
    return {
        "first": first.name,
        "second": second.name,
        "statement": statement(first.name, second.name, main, languages, trained_once, english),
        "average": main,
        "groups": by_group,
        "languages": languages,
    }


def _plain(found: PairedResult) -> dict[str, Any]:
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "sign_test_p": found.exact_p,
        "effect_size": found.cohens_h,
        "num_seeds": list(found.num_seeds),
    }
