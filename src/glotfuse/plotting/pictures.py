"""Draws every picture of an inspection and writes its data beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import did_you_mean
from glotfuse.files import write_file
from glotfuse.inspection.results import Alignment, Inspection
from glotfuse.plotting.canvas import PlottingError, require_matplotlib, save_figure
from glotfuse.plotting.tokenisation import tokenisation_figure
from glotfuse.plotting.translations import projection_figure, similarity_figure
from glotfuse.plotting.weights import (
    history_figure,
    language_weights_figure,
    layer_weights_figure,
    token_weights_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


def draw_inspection(found: Inspection, folder: Path, format: str = "png") -> list[Path]:
    """Writes pictures and data.

    Each picture `<name>.png` (or `.svg`) has `<name>.json` beside it: `layer_weights`, `token_weights`,
    `language_weights`, `weights_over_training`, `alignment`, `projection` and `tokenisation`, as far as there is
    something to show.

    Args:
        found: What was found.
        folder: Where they go; pictures of the same names are replaced.
        format: `png` or `svg`.

    Returns:
        The pictures' paths.

    Raises:
        PlottingError: The format is unknown, matplotlib is missing, or a file cannot be written.
    """
    if format not in FORMATS:
        raise PlottingError(
            f"Expected the format {' or '.join(FORMATS)}; found {format!r}.{did_you_mean(format, FORMATS)}"
        )
    shown = [kind for kind in _kinds(found) if kind[1]]
    about = {name: getattr(found, name) for name in ("run", "encoder", "mixer", "num_layers", "split", "notes")}
    for name, data, *_ in shown:
        if isinstance(data, Alignment):  # the projections have a picture of their own
            data = {key: value for key, value in asdict(data).items() if key != "projections"}
        text = json.dumps({**about, name: data}, ensure_ascii=False, indent=1, default=asdict)
        write_file(
            folder / f"{name}.json", text + "\n", error=PlottingError, advice="Choose another folder with --out."
        )
    require_matplotlib()
    paths = []
    for name, data, draw, title in shown:
        paths.append(folder / f"{name}.{format}")
        save_figure(draw(data, f"{title}\n{found.run}: {found.mixer} over {found.encoder}"), paths[-1])
    return paths


def _kinds(found: Inspection) -> list[tuple[str, Any, Callable[..., Figure], str]]:
    """Name, data, drawing function and title of every picture; without data there is no picture."""
    projections = found.alignment.projections if found.alignment else ()
    return [
        ("layer_weights", found.layer_weights, layer_weights_figure, "Layer weights"),
        ("token_weights", found.texts, token_weights_figure, "Layer weights of each token"),
        ("language_weights", found.languages, language_weights_figure, "Layer weights per language"),
        ("weights_over_training", found.history, history_figure, "Layer weights while training"),
        ("alignment", found.alignment, similarity_figure, "Alignment of translations"),
        ("projection", projections, projection_figure, "Principal components of parallel rows"),
        ("tokenisation", found.tokenisation, tokenisation_figure, "Tokenisation"),
    ]
