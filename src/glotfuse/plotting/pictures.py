"""Draws every picture of an inspection and writes its data beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import did_you_mean
from glotfuse.files import write_file
from glotfuse.inspection.results import Inspection
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


@dataclass(frozen=True)
class _Picture:
    name: str
    data: Any
    draw: Callable[[], Figure]


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
    pictures = _pictures(found)
    about = {name: getattr(found, name) for name in ("run", "encoder", "mixer", "num_layers", "split", "notes")}
    for picture in pictures:
        write_data({**about, picture.name: picture.data}, folder / f"{picture.name}.json")
    require_matplotlib()
    paths = []
    for picture in pictures:
        paths.append(folder / f"{picture.name}.{format}")
        save_figure(picture.draw(), paths[-1])
    return paths


def _pictures(found: Inspection) -> list[_Picture]:
    about = f"{found.run}: {found.mixer} over {found.encoder}"
    pictures = []
    if found.layer_weights is not None:
        draw = partial(layer_weights_figure, found.layer_weights, f"Layer weights\n{about}")
        pictures.append(_Picture("layer_weights", found.layer_weights, draw))
    if found.texts:
        draw = partial(token_weights_figure, found.texts, f"Layer weights of each token\n{about}")
        pictures.append(_Picture("token_weights", found.texts, draw))
    if found.languages:
        draw = partial(language_weights_figure, found.languages, f"Layer weights per language\n{about}")
        pictures.append(_Picture("language_weights", found.languages, draw))
    if found.history is not None:
        draw = partial(history_figure, found.history, f"Layer weights while training\n{about}")
        pictures.append(_Picture("weights_over_training", found.history, draw))
    if found.alignment is not None:
        draw = partial(similarity_figure, found.alignment, f"Alignment of translations\n{about}")
        data = asdict(found.alignment)
        data.pop("projections")
        pictures.append(_Picture("alignment", data, draw))
        projections = found.alignment.projections
        draw = partial(projection_figure, projections, f"Principal components of parallel rows\n{about}")
        pictures.append(_Picture("projection", projections, draw))
    if found.tokenisation:
        draw = partial(tokenisation_figure, found.tokenisation, f"Tokenisation\n{about}")
        pictures.append(_Picture("tokenisation", found.tokenisation, draw))
    return pictures


def write_data(values: Any, path: Path) -> None:
    """Writes plain data and dataclasses as JSON.

    Raises:
        PlottingError: The file cannot be written.
    """
    text = json.dumps(values, ensure_ascii=False, indent=1, default=_plain)
    write_file(path, text + "\n", error=PlottingError, advice="Choose another folder with --out.")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"Expected plain data; found {type(value).__name__}")
