"""Pictures of alignment: retrieval and CKA per layer and after the fusion, and rows on two principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glotfuse.inspection.results import Alignment, Projection, Similarity
from glotfuse.languages.names import name_of
from glotfuse.plotting.canvas import colour_of, heat_map, layer_ticks, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vP"


def similarity_figure(alignment: Alignment, title: str) -> Figure:
    """Languages by encoder layers, mixed states and span: retrieval beside debiased CKA."""
    rows: list[Sequence[Similarity]] = [[*found.layers, found.mixed, found.span] for found in alignment.languages]
    num_layers = len(alignment.languages[0].layers)
    figure = new_figure(3.2 + 0.66 * (num_layers + 2), 1.7 + 0.24 * len(rows), title)
    panels = figure.subplots(1, 2, sharey=True)
    pivot = name_of(alignment.pivot)
    retrieval = [[found.retrieval for found in row] for row in rows]
    cka = [[found.debiased_cka for found in row] for row in rows]
    chance = f"chance {1 / alignment.num_rows:.3f}"
    for axes, values, name in (
        (panels[0], retrieval, f"retrieval accuracy, both directions ({chance})"),
        (panels[1], cka, "linear CKA, debiased (chance 0)"),
    ):
        heat_map(axes, values, 0.0, 1.0, numbers=num_layers <= 24)
        layer_ticks(axes, num_layers, ("mixed", "span"))
        for label in axes.get_xticklabels()[-2:]:
            label.set_rotation(60)
        axes.axvline(num_layers - 0.5, color="white", linewidth=2)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(f"encoder layer, then fusion; {alignment.num_rows} rows against {pivot}", fontsize=8)
    panels[0].set_yticks(range(len(rows)), [name_of(found.language) for found in alignment.languages])
    return figure


def projection_figure(projections: Sequence[Projection], title: str) -> Figure:
    """A row of panels per projection, coloured by language and beside it by label."""
    figure = new_figure(10.5, 1.0 + 3.2 * len(projections), title)
    panels = figure.subplots(len(projections), 2, squeeze=False)
    for (left, right), found in zip(panels, projections, strict=True):
        languages = [name_of(code) for code in found.languages]
        _scatter(left, found, languages, f"{found.stage}, by language")
        _scatter(right, found, [label or "no label" for label in found.labels], f"{found.stage}, by label")
    for axes in panels[0]:
        axes.legend(
            fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.5, handletextpad=0.2
        )
    return figure


def _scatter(axes: Axes, found: Projection, kinds: Sequence[str], title: str) -> None:
    names = list(dict.fromkeys(kinds))
    for index, name in enumerate(names):
        points = [point for point, kind in zip(found.points, kinds, strict=True) if kind == name]
        xs, ys = zip(*points, strict=True)
        marker = _MARKERS[index * len(_MARKERS) // max(len(names), len(_MARKERS))]
        axes.scatter(
            xs, ys, s=9, color=[colour_of(index, len(names))], marker=marker, alpha=0.75, linewidths=0, label=name
        )
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"component 1 ({found.explained[0]:.0%} of variance)", fontsize=7)
    axes.set_ylabel(f"component 2 ({found.explained[1]:.0%})", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
