"""A comparison as values: what comparison.json holds (format 1), as fractions, not percent.

A file of another origin may lack what has a default here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
    """One recipe's scores; macro-F1 has an interval in a language, and none in a group."""

    accuracy: Estimate
    macro_f1: Estimate | float | None = None

    @property
    def f1(self) -> Estimate:
        """Macro-F1, with an interval where there is one."""
        return self.macro_f1 if isinstance(self.macro_f1, Estimate) else Estimate(self.macro_f1)


@dataclass(frozen=True)
class SeedScores(Scores):
    """One recipe's scores in a language, with the accuracy of each seed."""

    per_seed: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class RecipeRuns:
    """A recipe and its runs, one for each seed.

    Training took `seconds`; `trained` is whether anything was, and `random` whether another seed would change it.
    """

    name: str
    seeds: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()
    seconds: tuple[float | None, ...] = ()
    trained: bool | None = None
    random: bool | None = None


@dataclass(frozen=True)
class LanguageScores:
    """A language with the scores of each recipe, by recipe name; `seen` is whether the encoder was trained on it."""

    code: str
    name: str
    num_examples: int
    scores: Mapping[str, SeedScores]
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
    """Accuracy of the first recipe minus that of the second, with the p-values of both tests and Cohen's h."""

    difference: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    sign_test_p: float | None = None
    effect_size: float | None = None
    num_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class GroupDifference(Difference):
    """On average over a group of languages."""

    title: str = ""
    num_languages: int | None = None


@dataclass(frozen=True)
class LanguageDifference(Difference):
    """In a language; the p-value once more, corrected for the number of languages by Holm's method."""

    code: str = ""
    p_adjusted: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two recipes compared; the average is that over all languages but English, where there are others."""

    first: str
    second: str
    statement: str
    average: GroupDifference
    groups: tuple[GroupDifference, ...] = ()
    languages: tuple[LanguageDifference, ...] = ()


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

    def to_dict(self) -> dict[str, Any]:
        """The content of comparison.json, with the version of the layout."""
        return {"format": FORMAT, **asdict(self)}


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
