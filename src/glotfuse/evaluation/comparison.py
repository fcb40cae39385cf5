"""Recipes compared on the predictions of their runs: scores over seeds, paired tests, and a statement in words.

Legend: S seeds of a recipe, N rows of a language, K labels. Reads `predictions/<split>/<language>.jsonl` of run folders
and nothing else, so finished runs of any origin can be compared. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from glotfuse.errors import DataError
from glotfuse.evaluation.comparison_data import (
    Comparison,
    Estimate,
    GroupDifference,
    GroupScores,
    LanguageDifference,
    LanguageScores,
    Pair,
    RecipeRuns,
    Scores,
    SeedScores,
)
from glotfuse.evaluation.metrics import Interval
from glotfuse.evaluation.predictions import Predictions, check_same_rows, read_predictions, row_ids
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
from glotfuse.languages.names import GROUPS, is_english, is_low_resource, name_of
from glotfuse.run_folder import report_file

ALL_BUT_ENGLISH = GROUPS["all_but_english"][0]
"""Title of the group that the main figure of a pair is over."""


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
    answers = {
        c.name: {code: read_predictions(c.runs, split, code, first.labels) for code in shared} for c in contestants
    }
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
        labels=tuple(first.labels),
        metadata={
            "encoder": encoder,
            "lm": first.metadata.get("lm"),
            "parallel_rows": rows is not None,
            "left_out": [code for code in measured if code not in shared],
            "leaks_checked": all(r.metadata.get("leaks_checked") is True for found in reports.values() for r in found),
        },
        recipes=tuple(_recipe(contestant) for contestant in contestants),
        languages=tuple(languages),
        groups=tuple(_group(group, answers, rows, languages) for group in groups),
        pairs=tuple(
            _pair(a, b, answers, groups, rows, [c.name for c in (a, b) if c.random and len(c.runs) == 1])
            for a, b in combinations(contestants, 2)
        ),
        leaks=tuple(leaks) if isinstance(leaks := first.metadata.get("leaks"), list) else (),
    )


def _recipe(contestant: Contestant) -> RecipeRuns:
    number = len(contestant.runs)
    return RecipeRuns(
        contestant.name,
        tuple(contestant.seeds or range(number)),
        tuple(map(str, contestant.runs)),
        tuple(contestant.seconds or [None] * number),
        contestant.trained,
        contestant.random,
    )


def _check_same_task(reports: Mapping[str, Sequence[EvaluationReport]]) -> None:
    found = {(r.task, r.split, r.labels) for runs in reports.values() for r in runs}
    if len(found) > 1:
        listed = "; ".join(sorted(f"{task}, {split}, {len(labels)} labels" for task, split, labels in found))
        raise DataError(f"Expected runs of one task, split and set of labels; found {listed}.")


def _all_have(reports: Mapping[str, Sequence[EvaluationReport]], code: str) -> bool:
    return all(code in {r.language for r in report.results} for runs in reports.values() for report in runs)


def _language(
    code: str, encoder: str, answers: Mapping[str, Mapping[str, Predictions]], num_labels: int
) -> LanguageScores:
    found = {name: by_language[code] for name, by_language in answers.items()}
    scores = {
        name: SeedScores(
            _estimate(accuracy_over_seeds(own.correct)),
            _estimate(macro_f1_over_seeds(own.gold, own.predicted, num_labels)),
            tuple(own.correct.mean(axis=1).tolist()),
        )
        for name, own in found.items()
    }
    return LanguageScores(
        code=code,
        name=name_of(code),
        num_examples=len(next(iter(found.values())).rows),
        scores=scores,
        script=script_of(code),
        family=family_of(code),
        low_resource=is_low_resource(code),
        seen=seen_by(encoder, code),
    )


def _group(
    group: LanguageGroup,
    answers: Mapping[str, Mapping[str, Predictions]],
    rows: Mapping[str, Sequence[int]] | None,
    languages: Sequence[LanguageScores],
) -> GroupScores:
    scores = {}
    for name, by_language in answers.items():
        means = average_over_seeds([by_language[code].correct for code in group.codes], _ids(group.codes, rows))
        f1 = [one.scores[name].f1.value for one in languages if one.code in group.codes]
        scores[name] = Scores(_estimate(means), float(np.mean(f1)))  # type: ignore[arg-type]
    return GroupScores(group.title, tuple(group.codes), scores)


def _estimate(found: Interval) -> Estimate:
    return Estimate(found.value, found.low, found.high)


def _ids(codes: Sequence[str], rows: Mapping[str, Sequence[int]] | None) -> list[Sequence[int]] | None:
    return [rows[code] for code in codes] if rows is not None else None


def _pair(
    first: Contestant,
    second: Contestant,
    answers: Mapping[str, Mapping[str, Predictions]],
    groups: Sequence[LanguageGroup],
    rows: Mapping[str, Sequence[int]] | None,
    trained_once: Sequence[str],
) -> Pair:
    one, other = answers[first.name], answers[second.name]
    by_group = []
    for group in groups:
        first_side, other_side = ([side[code].correct for code in group.codes] for side in (one, other))
        found = compare_average(first_side, other_side, _ids(group.codes, rows))
        by_group.append(GroupDifference(**_plain(found), title=group.title, num_languages=len(group.codes)))
    by_language = [(code, compare_language(one[code].correct, other[code].correct)) for code in one]
    corrected = adjusted([found.p_value for _, found in by_language])
    languages = tuple(
        LanguageDifference(**_plain(found), code=code, p_adjusted=p)
        for (code, found), p in zip(by_language, corrected, strict=True)
    )
    english = {
        contestant.name: float(found.correct.mean())
        for contestant in (first, second)
        for code, found in answers[contestant.name].items()
        if is_english(code)
    }
    main = next((group for group in by_group if group.title == ALL_BUT_ENGLISH), by_group[0])
    said = statement(first.name, second.name, main, languages, trained_once, english)
    return Pair(first.name, second.name, said, main, tuple(by_group), languages)


def _plain(found: PairedResult) -> dict[str, Any]:
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "sign_test_p": found.exact_p,
        "effect_size": found.cohens_h,
        "num_seeds": found.num_seeds,
    }
