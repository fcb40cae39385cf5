"""Pictures of layer weights: bars per layer, heat maps over tokens and over languages, curves over training.

Shapes: L layers, T tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glotfuse.inspection.results import LanguageWeights, LayerWeights, TextWeights, WeightHistory
from glotfuse.languages.names import name_of
from glotfuse.plotting.canvas import heat_map, layer_ticks, new_figure
from glotfuse.plotting.fonts import DEFAULT, font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOKENS = 60
"""Tokens of a text that are drawn; the data has all."""

_COLUMNS = 5
_TITLE_LENGTH = 30


def layer_weights_figure(found: LayerWeights, title: str) -> Figure:
    """One bar per layer, with the standard deviation over tokens where weights differ between tokens."""
    num_layers = len(found.weights)
    figure = new_figure(max(4.5, 0.35 * num_layers + 1.5), 3.2, title)
    axes = figure.subplots()
    spread = (
        None if found.shared else [[min(s, w) for s, w in zip(found.spread, found.weights, strict=True)], found.spread]
    )
    axes.bar(range(num_layers), found.weights, yerr=spread, color="#3b6ea5", ecolor="#444444", capsize=2)
    axes.axhline(1 / num_layers, color="#999999", linewidth=0.8, linestyle="--", label="equal weights")
    layer_ticks(axes, num_layers)
    axes.set_xlabel("encoder layer", fontsize=8)
    kind = "weight" if found.shared else f"mean weight over {found.num_tokens} tokens, bars: std"
    axes.set_ylabel(kind, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    return figure


def token_weights_figure(texts: Sequence[TextWeights], title: str) -> Figure:
    """One panel per text: tokens from top to bottom in reading order, layers from left to right."""
    rows = -(-len(texts) // _COLUMNS)
    columns = -(-len(texts) // rows)
    tallest = max(min(MOST_TOKENS, len(found.tokens)) for found in texts)
    figure = new_figure(0.6 + 2.7 * columns, 1.0 + rows * (0.9 + 0.2 * tallest), title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    highest = max(weight for found in texts for row in found.weights for weight in row)
    image = None
    for index, (axes, found) in enumerate(zip(panels, texts, strict=False)):
        shown = found.weights[:MOST_TOKENS]
        image = heat_map(axes, shown, 0.0, highest)
        axes.set_ylim(tallest - 0.5, -0.5)  # tokens are as tall in every panel
        layer_ticks(axes, len(shown[0]))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        _write_tokens(axes, found.tokens[:MOST_TOKENS])
        _write_title(axes, found, index)
    for axes in panels[len(texts) :]:
        axes.set_visible(False)
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), shrink=0.5, aspect=30, pad=0.01)
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def language_weights_figure(languages: Sequence[LanguageWeights], title: str) -> Figure:
    """Mean over a language's tokens and, beside it, the standard deviation."""
    num_layers = len(languages[0].mean)
    figure = new_figure(3.0 + 0.62 * num_layers, 1.2 + 0.24 * len(languages), title)
    panels = figure.subplots(1, 2, sharey=True)
    tables = (
        ("mean over tokens", [found.mean for found in languages]),
        ("std over tokens", [found.std for found in languages]),
    )
    for axes, (name, values) in zip(panels, tables, strict=True):
        high = max(max(map(max, values)), 1e-9)
        heat_map(axes, values, 0.0, high, numbers=num_layers <= 24)
        layer_ticks(axes, num_layers)
        axes.set_xlabel("encoder layer", fontsize=8)
        axes.set_title(name, fontsize=9)
    panels[0].set_yticks(range(len(languages)), [name_of(found.language) for found in languages])
    return figure


def history_figure(history: WeightHistory, title: str) -> Figure:
    """One curve per layer over optimizer steps."""
    import matplotlib

    figure = new_figure(6.5, 3.6, title)
    axes = figure.subplots()
    num_layers = len(history.weights[0])
    colours = matplotlib.colormaps["viridis"]
    for layer in range(num_layers):
        curve = [weights[layer] for weights in history.weights]
        colour = colours(layer / max(1, num_layers - 1))
        axes.plot(history.steps, curve, marker="o", markersize=3, linewidth=1.2, color=colour, label=str(layer + 1))
    axes.axhline(1 / num_layers, color="#999999", linewidth=0.8, linestyle="--")
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.set_ylabel("mean weight", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(
        title="layer",
        title_fontsize=7,
        fontsize=6,
        frameon=False,
        ncols=-(-num_layers // 12),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return figure


def _write_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    """Tokens at their rows, each in fonts of its script; by number where there is none."""
    families = [font_families(token) for token in tokens]
    shown = [
        token if family is not None else f"#{position + 1}"
        for position, (token, family) in enumerate(zip(tokens, families, strict=True))
    ]
    axes.set_yticks(range(len(tokens)), shown, parse_math=False)
    for label, family in zip(axes.get_yticklabels(), families, strict=True):
        label.set_fontfamily(family or [DEFAULT])
        label.set_fontsize(8)


def _write_title(axes: Axes, found: TextWeights, index: int) -> None:
    hidden = len(found.tokens) - MOST_TOKENS
    more = f"\n(first {MOST_TOKENS} of {len(found.tokens)} tokens)" if hidden > 0 else ""
    if found.language is not None:
        axes.set_title(name_of(found.language) + more, fontsize=9)
        return
    families = font_families(found.text)
    name = shortened(found.text, _TITLE_LENGTH) if families else f"text {index + 1}"
    axes.set_title(name + more, fontsize=8, fontfamily=families or [DEFAULT], parse_math=False)


def shortened(text: str, length: int) -> str:
    """The beginning of a text, in whole words where it has spaces, and never a letter without its marks."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    end = length
    while end > 1 and (unicodedata.category(text[end]).startswith("M") or unicodedata.combining(text[end - 1]) == 9):
        end -= 1
    word = text.rfind(" ", length // 2, end + 1)
    return text[: word if word > 0 else end].rstrip() + "…"
