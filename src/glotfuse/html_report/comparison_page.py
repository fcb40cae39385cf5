"""What the page of a comparison shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glotfuse.evaluation.comparison_data import Comparison, Difference, Estimate, Pair, RecipeRuns
from glotfuse.html_report.formats import NOT_RECORDED, duration, finite, plain, titled

_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_PROVENANCE = ("command", "started", "finished", "hardware", "versions")
_SHOWN_ELSEWHERE = ("leaks", "leaks_checked")
_WIDE = 6


@dataclass(frozen=True)
class RecipeRow:
    """A recipe in the table of runs, in words."""

    name: str
    trained: str
    seeds: str
    seconds: str
    per_seed: str
    folders: str


def comparison_values(folder: Path, comparison: Comparison) -> dict[str, Any]:
    """The values of the template for a comparison, and the folder that it is of."""
    return {
        "title": f"Comparison on {comparison.task}",
        "folder": str(folder),
        "comparison": comparison,
        "names": [recipe.name for recipe in comparison.recipes],
        "wide": len(comparison.recipes) > _WIDE,
        "leaks": [dict(leak) for leak in comparison.leaks],
        "leaks_checked": bool(comparison.metadata.get("leaks_checked")),
        "recipes": [_recipe_row(recipe, comparison) for recipe in comparison.recipes],
        "average_limit": limit(pair.average for pair in comparison.pairs),
        "provenance": _provenance(comparison.metadata),
        "num_runs": sum(max(len(recipe.runs), len(recipe.seeds)) for recipe in comparison.recipes),
        "total_seconds": duration(sum(finite(s) or 0.0 for r in comparison.recipes for s in r.seconds) or None),
        "embedded": _embedded(comparison),
    }


def limit(differences: Iterable[Difference]) -> float:
    """A round half-width of an axis around zero that holds all intervals, as a fraction."""
    ends = [finite(end) or 0.0 for row in differences for end in (row.difference, row.low, row.high)]
    return next((value for value in _LIMITS if value >= max(map(abs, ends), default=0.0)), 1.0)


def _recipe_row(recipe: RecipeRuns, comparison: Comparison) -> RecipeRow:
    return RecipeRow(
        recipe.name,
        NOT_RECORDED if recipe.trained is None else plain(recipe.trained),
        plain(recipe.seeds),
        ", ".join(map(duration, recipe.seconds)) or NOT_RECORDED,
        _per_seed(recipe.name, comparison),
        "\n".join(recipe.runs),
    )


def _per_seed(name: str, comparison: Comparison) -> str:
    """Mean accuracy over the languages for each seed, in percent, and their standard deviation."""
    rows = [language.scores[name].per_seed for language in comparison.languages if name in language.scores]
    sizes = {len(row) for row in rows}
    if len(sizes) != 1 or sizes == {0} or any(finite(value) is None for row in rows for value in row):
        return NOT_RECORDED
    means = [100 * statistics.fmean(value for value in seed if value is not None) for seed in zip(*rows, strict=True)]
    shown = ", ".join(f"{mean:.1f}" for mean in means)
    return f"{shown} (standard deviation {statistics.stdev(means):.1f})" if len(means) > 1 else shown


def _provenance(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [(titled(key), plain(metadata.get(key, NOT_RECORDED))) for key in _PROVENANCE]
    return facts + [
        (titled(key), plain(value)) for key, value in metadata.items() if key not in _PROVENANCE + _SHOWN_ELSEWHERE
    ]


def _embedded(comparison: Comparison) -> dict[str, Any]:
    """What the page's script draws on demand: averages of a group, differences of a pair in each language."""
    index = {language.code: number for number, language in enumerate(comparison.languages)}
    return {
        "recipes": [recipe.name for recipe in comparison.recipes],
        "languages": [
            {"code": language.code, "name": language.name, "low_resource": bool(language.low_resource)}
            for language in comparison.languages
        ],
        "groups": [
            {
                "title": group.title,
                "size": len(group.languages),
                "accuracy": {name: _ends(scores.accuracy) for name, scores in group.scores.items()},
                "macro_f1": {name: _ends(scores.f1) for name, scores in group.scores.items()},
            }
            for group in comparison.groups
        ],
        "pairs": [_pair(pair, index) for pair in comparison.pairs],
    }


def _pair(pair: Pair, index: Mapping[str, int]) -> dict[str, Any]:
    told = any(group.title == pair.average.title for group in pair.groups)
    groups = pair.groups if told else (pair.average, *pair.groups)
    return {
        "first": pair.first,
        "second": pair.second,
        "statement": pair.statement,
        "limit": limit((pair.average, *pair.groups, *pair.languages)),
        "groups": [[row.title, *_numbers(row)] for row in groups],
        "languages": [
            [index[row.code], *_numbers(row), *map(finite, (row.p_adjusted, row.sign_test_p, row.effect_size))]
            for row in pair.languages
        ],
    }


def _numbers(row: Difference) -> list[float | None]:
    return [finite(value) for value in (row.difference, row.low, row.high, row.p_value)]


def _ends(estimate: Estimate) -> list[float | None]:
    return [finite(value) for value in (estimate.value, estimate.low, estimate.high)]
