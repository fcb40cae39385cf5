"""A comparison of recipes as tables and sentences."""

from __future__ import annotations

from typing import Literal

from glotfuse.evaluation.comparison import ALL_BUT_ENGLISH
from glotfuse.evaluation.comparison_data import Comparison, Estimate, RecipeRuns, Scores
from glotfuse.evaluation.report import ResultTable


def comparison_results(
    found: Comparison, score: Literal["accuracy", "macro_f1"] = "accuracy", *, brief: bool = False
) -> ResultTable:
    """Languages by recipes, in percent with 95% intervals, then the groups of languages.

    Args:
        found: The comparison.
        score: What the cells show; groups have an interval for accuracy alone.
        brief: Leave out the intervals and the groups by script and family, which many recipes have no room for.
    """
    names = [recipe.name for recipe in found.recipes]
    rows = [
        [language.name, language.code, *(_cell(_score(language.scores[name], score)) for name in names)]
        for language in found.languages
    ]
    shown = [group for group in found.groups if not brief or not group.title.startswith(("script:", "family:"))]
    groups = [
        [f"{group.title} ({len(group.languages)})", "", *(_cell(_score(group.scores[name], score)) for name in names)]
        for group in shown
    ]
    if brief:
        rows = [[cell.partition(" [")[0] if i > 1 else cell for i, cell in enumerate(row)] for row in rows]
        groups = [[cell.partition(" [")[0] if i > 1 else cell for i, cell in enumerate(row)] for row in groups]
    seeds = ", ".join(f"{recipe.name} {len(recipe.seeds)}" for recipe in found.recipes)
    intervals = "In brackets: 95% confidence intervals over examples and, where there are several, seeds."
    notes = [
        f"{'' if brief else intervals + ' '}Runs: {seeds}.",
        "Groups are unweighted means over their languages.",
    ]
    if found.metadata.get("left_out"):
        notes.append(f"Not measured in all runs, and left out: {', '.join(found.metadata['left_out'])}.")
    title = {"accuracy": "Accuracy %", "macro_f1": "Macro-F1 %"}[score]
    return ResultTable(
        f"{title}: {found.task}, {found.split}",
        ["Language", "Code", *names],
        rows,
        groups,
        notes,
        stacked=len(names) > 2 and not brief,
    )


def statements(found: Comparison) -> list[str]:
    """One sentence for each other recipe, against the one with the highest average."""
    group = next((g for g in found.groups if g.title == ALL_BUT_ENGLISH), found.groups[0])
    best = max(group.scores, key=lambda name: group.scores[name].accuracy.value or 0.0)
    return [pair.statement for pair in found.pairs if best in (pair.first, pair.second)]


def to_markdown(found: Comparison) -> str:
    """A page: the statements, accuracy and macro-F1, and every pair's statement."""
    lines = [f"# Comparison on {found.task}, {found.split}", ""]
    lines += [f"- {sentence}" for sentence in statements(found)]
    for score, heading in (("accuracy", "Accuracy %"), ("macro_f1", "Macro-F1 %")):
        lines += ["", f"## {heading}", "", comparison_results(found, score).to_markdown()]  # type: ignore[arg-type]
    lines += ["## All pairs", "", *(f"- {pair.statement}" for pair in found.pairs), "", "## Time", ""]
    lines += [f"- {recipe.name}: {_seconds(recipe)}" for recipe in found.recipes]
    return "\n".join(lines) + "\n"


def _score(scores: Scores, name: Literal["accuracy", "macro_f1"]) -> Estimate:
    return scores.accuracy if name == "accuracy" else scores.f1


def _cell(found: Estimate) -> str:
    """Percent with the interval, where there is one."""
    if found.value is None:
        return ""
    ends = "" if found.low is None or found.high is None else f" [{found.low * 100:.1f}, {found.high * 100:.1f}]"
    return f"{found.value * 100:.1f}{ends}"


def _seconds(recipe: RecipeRuns) -> str:
    times = [seconds for seconds in recipe.seconds if seconds is not None]
    return "training time not recorded" if not times else ", ".join(f"{seconds:.0f} s" for seconds in times)
