"""Pictures of tokenisation per language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glotfuse.inspection.results import LanguageTokenisation
from glotfuse.languages.names import name_of
from glotfuse.plotting.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tokenisation_figure(languages: Sequence[LanguageTokenisation], title: str) -> Figure:
    """Four bars per language: tokens per character, tokens relative to the pivot, unknown and cut."""
    tables: list[tuple[str, list[float | None], str]] = [
        ("tokens per character", [found.tokens_per_character for found in languages], "{:.2f}"),
        (
            "tokens relative to\nthe training language",
            [found.relative_to_pivot for found in languages],
            "{:.2f}",
        ),
        ("unknown tokens, %", [100 * found.unknown_rate for found in languages], "{:.1f}"),
        ("texts cut, %", [100 * found.truncation_rate for found in languages], "{:.1f}"),
    ]
    figure = new_figure(11.0, 1.3 + 0.24 * len(languages), title)
    panels = figure.subplots(1, len(tables), sharey=True)
    for axes, (name, values, form) in zip(panels, tables, strict=True):
        drawn = [value or 0.0 for value in values]
        bars = axes.barh(range(len(values)), drawn, color="#3b6ea5")
        axes.bar_label(bars, ["not parallel" if v is None else form.format(v) for v in values], fontsize=7, padding=2)
        axes.set_xlim(0, max([*drawn, 0.01]) * 1.3)
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, labelsize=7)
    panels[0].set_yticks(range(len(languages)), [name_of(found.language) for found in languages])
    panels[0].invert_yaxis()
    return figure
