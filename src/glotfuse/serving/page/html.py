"""The page's answers as HTML: probabilities, generated text, notes, and the layer weights of each token.

Every text of a user or model is escaped here. Shapes: T tokens, L layers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from glotfuse.inspection.weights import TokenWeights

MOST_TOKENS = 160
"""Tokens of a text whose weights are drawn."""


def direction(text: str) -> str:
    """`rtl` or `ltr`, from the first letter that has a direction (rule P2 of the Unicode bidirectional algorithm)."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            return "ltr"
    return "ltr"


def labels_html(label: str, probabilities: Mapping[str, float], notes: Iterable[str] = ()) -> str:
    """The chosen label, and a bar for every label, the most probable first.

    Args:
        label: The most probable one.
        probabilities: Of every label, from 0 to 1.
        notes: What to know about this answer.
    """
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = "".join(_bar(name, value, name == label) for name, value in ordered)
    return (
        f'<div class="gf-answer"><p class="gf-label" dir="auto">{escape(label)}</p>'
        f'<div class="gf-bars" role="list" aria-label="Probability of each label">{rows}</div>{notes_html(notes)}</div>'
    )


def _bar(name: str, value: float, chosen: bool) -> str:
    percent = f"{100 * value:.1f}"
    return (
        f'<div role="listitem" class="gf-row{" gf-chosen" if chosen else ""}">'
        f'<span class="gf-name" dir="auto">{escape(name)}</span>'
        f'<span class="gf-track"><span class="gf-fill" style="width:{percent}%"></span></span>'
        f'<span class="gf-number">{percent}%</span></div>'
    )


def text_html(text: str, *, running: bool, notes: Iterable[str] = ()) -> str:
    """A generated answer, as far as it has come."""
    cursor = '<span class="gf-cursor" aria-hidden="true"></span>' if running else ""
    shown = escape(text) or ("" if running else '<span class="gf-muted">The model wrote nothing.</span>')
    return f'<div class="gf-answer"><div class="gf-text" dir="auto">{shown}{cursor}</div>{notes_html(notes)}</div>'


def message_html(message: str, kind: str = "error") -> str:
    """A message in place of an answer: `error`, or `hint`."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="gf-message gf-{kind}" role="{role}" dir="auto">{escape(message)}</div>'


def notes_html(notes: Iterable[str]) -> str:
    """A list of notes; empty without any."""
    items = "".join(f'<li dir="auto">{escape(note)}</li>' for note in notes)
    return f'<ul class="gf-notes">{items}</ul>' if items else ""


def weights_html(found: TokenWeights) -> str:
    """How much of each encoder layer the LM reads: over the text, and token by token where tokens differ.

    Tokens run in the text's own direction; the first layer is at the top.
    """
    if found.shared:
        lead = "This model gives every token the same weights."
        return f'<div class="gf-weights"><p class="gf-lead">{lead}</p>{_one_row(found.mean)}</div>'
    tokens, rows = found.tokens[:MOST_TOKENS], found.weights[:MOST_TOKENS]
    highest = max(max(row) for row in rows)
    strips = "".join(
        _strip(token, row, highest, special) for token, row, special in zip(tokens, rows, found.special, strict=False)
    )
    left_out = len(found.tokens) - len(tokens)
    notes = [f"The first {len(tokens)} of {len(found.tokens)} tokens are drawn."] if left_out else []
    return (
        '<div class="gf-weights"><p class="gf-lead">Mean over the text</p>'
        f"{_one_row(found.mean)}"
        '<p class="gf-lead">Each token, in reading order. Layer 1 is at the top; the number is the layer with the most '
        f'weight. {_legend(highest)}</p>{notes_html(notes)}<div class="gf-strips" dir="{direction(found.text)}" '
        f'role="list">{strips}</div></div>'
    )


def _one_row(weights: Sequence[float]) -> str:
    """A table with one row: a column per layer."""
    highest = max(weights)
    heads = "".join(f'<th scope="col">{layer}</th>' for layer in range(1, len(weights) + 1))
    cells = "".join(
        f'<td title="layer {layer}: {_percent(weight)}"><span class="gf-column">'
        f'<i style="height:{_share(weight, highest)}%"></i></span>{_percent(weight)}</td>'
        for layer, weight in enumerate(weights, 1)
    )
    return (
        '<div class="gf-scroll" tabindex="0"><table class="gf-layers" dir="ltr">'
        f'<thead><tr><th scope="row">Layer</th>{heads}</tr></thead>'
        f'<tbody><tr><th scope="row">Weight</th>{cells}</tr></tbody></table></div>'
    )


def _strip(token: str, weights: Sequence[float], highest: float, special: bool) -> str:
    """A token above its layers, from the first to the last."""
    best = max(range(len(weights)), key=weights.__getitem__)
    cells = "".join(
        f'<i style="--w:{_share(weight, highest)}%" title="layer {layer}: {_percent(weight)}"></i>'
        for layer, weight in enumerate(weights, 1)
    )
    spoken = escape(f"{token}: layer {best + 1} has the most weight, {_percent(weights[best])}")
    return (
        f'<div role="listitem" class="gf-strip{" gf-special" if special else ""}" aria-label="{spoken}">'
        f'<bdi class="gf-token" dir="auto">{escape(token)}</bdi><span class="gf-cells">{cells}</span>'
        f'<span class="gf-best">{best + 1}</span></div>'
    )


def _legend(highest: float) -> str:
    return f'<span class="gf-legend" dir="ltr">0%<span class="gf-scale"></span>{_percent(highest)}</span>'


def _share(weight: float, highest: float) -> str:
    return f"{100 * weight / highest if highest > 0 else 0:.0f}"


def _percent(weight: float) -> str:
    return f"{100 * weight:.0f}%" if weight >= 0.0995 or weight == 0 else f"{100 * weight:.1f}%"
