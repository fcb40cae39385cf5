"""The layout of comparison.json, format 1. Scores, differences and ends of intervals are fractions (0 to 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glotfuse.errors import DataError

FORMAT = 1

_AGAIN = "Make it again with `glotfuse compare`."


@dataclass(frozen=True)
class Estimate:
    """A score with its 95% interval; the ends are None where none was computed."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scores:
    """One recipe's scores in a language or group; in a language also the accuracy of each seed."""

    accuracy: Estimate
    macro_f1: Estimate | float | None = None
    per_seed: tuple[float | None, ...] = ()

    @property
    def f1(self) -> Estimate:
        """Macro-F1, with an interval where there is one."""
        return self.macro_f1 if isinstance(self.macro_f1, Estimate) else Estimate(self.macro_f1)


@dataclass(frozen=True)
class RecipeRuns:
    """A recipe and its runs, one for each seed; `seconds` are of training."""

    name: str
    seeds: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()
    seconds: tuple[float | None, ...] = ()
    trained: bool | None = None


@dataclass(frozen=True)
class LanguageScores:
    """A language with the scores of each recipe, by recipe name; `seen` is whether the encoder was trained on it."""

    code: str
    name: str
    num_examples: int
    scores: Mapping[str, Scores]
    script: str | None = None
    family: str | None = None
    low_resource: bool | None = None
    seen: bool | None = None


@dataclass(frozen=True)
class GroupScores:
    """Unweighted means over a group of languages, by recipe name."""

    title: str
    languages: tuple[str, ...]
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class Difference:
    """Accuracy of the first recipe minus that of the second, over a group or (with `code`) in a language."""

    difference: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    title: str = ""
    code: str = ""
    p_adjusted: float | None = None
    sign_test_p: float | None = None
    effect_size: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two recipes compared."""

    first: str
    second: str
    statement: str
    average: Difference
    groups: tuple[Difference, ...] = ()
    languages: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A whole comparison; `metadata` says by `leaks_checked` whether all its runs were searched for leaks."""

    task: str
    split: str
    recipes: tuple[RecipeRuns, ...]
    languages: tuple[LanguageScores, ...]
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[GroupScores, ...] = ()
    pairs: tuple[Pair, ...] = ()
    leaks: tuple[Mapping[str, Any], ...] = ()


def load_comparison(path: Path) -> Comparison:
    """Reads comparison.json.

    Raises:
        DataError: The file is damaged, incomplete, of another format, or names recipes or languages that it lacks.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(path.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Expected a comparison in {path}; it cannot be read: {error}. {_AGAIN}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = f"format {data.get('format')!r}" if isinstance(data, dict) else type(data).__name__
        raise DataError(f"Expected a comparison of format {FORMAT} in {path}; found {found}. {_AGAIN}")
    try:
        comparison = TypeAdapter(Comparison).validate_python(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise DataError(f"Expected a whole comparison in {path}; found {problems}. {_AGAIN}") from None
    _check_names(comparison, path)
    return comparison


def _check_names(comparison: Comparison, path: Path) -> None:
    recipes = {recipe.name for recipe in comparison.recipes}
    codes = {language.code for language in comparison.languages}
    named = {name for language in comparison.languages for name in language.scores}
    named |= {name for group in comparison.groups for name in group.scores}
    named |= {name for pair in comparison.pairs for name in (pair.first, pair.second)}
    unknown = sorted(named - recipes)
    unknown += sorted({row.code for pair in comparison.pairs for row in pair.languages} - codes)
    if unknown:
        raise DataError(
            f"Expected every recipe and language in {path} to be listed under `recipes` and `languages`; found "
            f"{', '.join(unknown[:8])} besides. {_AGAIN}"
        )
