"""Where pictures are drawn and saved: matplotlib, imported when it is first needed."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import GlotfuseError
from glotfuse.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_OLDEST = (3, 11)
_INSTALL = "Install it with: pip install 'glotfuse[plots]'"
_DPI = 160


class PlottingError(GlotfuseError):
    """A picture cannot be drawn or written."""


def require_matplotlib() -> None:
    """Checks that matplotlib is there and lays out text of every script (HarfBuzz, since 3.11).

    Raises:
        PlottingError: It is missing or older.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise PlottingError(f"Expected matplotlib for pictures; found none ({error}). {_INSTALL}") from None
    version = tuple(int(part) for part in re.findall(r"\d+", matplotlib.__version__)[:2])
    if version < _OLDEST:
        raise PlottingError(
            f"Expected matplotlib {_OLDEST[0]}.{_OLDEST[1]} or newer, which joins and orders letters of every script; "
            f"found {matplotlib.__version__}. {_INSTALL}"
        )


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, without any window or global state."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure; the name's ending gives the format. SVG text becomes outlines, so it needs no fonts.

    Raises:
        PlottingError: The file cannot be written.
    """
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "glotfuse", "svg.fonttype": "path"}):
        figure.savefig(drawn, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    write_file(path, drawn.getvalue(), error=PlottingError, advice="Choose another folder with --out.")


def heat_map(
    axes: Axes, values: Sequence[Sequence[float]], low: float, high: float, *, numbers: bool = False
) -> AxesImage:
    """Draws rows of values as colours, with the values themselves (two digits) where asked for."""
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    if numbers:
        middle = (low + high) / 2
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                shown = f"{value:.2f}".removeprefix("0") if abs(value) < 0.995 else f"{value:.0f}"
                axes.text(
                    x, y, shown, ha="center", va="center", fontsize=6, color="black" if value > middle else "white"
                )
    axes.tick_params(length=0, labelsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def layer_ticks(axes: Axes, num_layers: int, extra: Sequence[str] = ()) -> None:
    """Labels columns with the layers' numbers from 1, thinned out where there are many, then with others."""
    step = max(1, -(-num_layers // 16))
    layers = [i for i in range(num_layers) if (i + 1) % step == 0 or i == 0]
    positions = [*layers, *range(num_layers, num_layers + len(extra))]
    axes.set_xticks(positions, [*(str(i + 1) for i in layers), *extra], fontsize=7)


def colour_of(index: int, count: int) -> Any:
    """The colour of one of `count` kinds, all different up to twenty."""
    import matplotlib

    return matplotlib.colormaps["tab10" if count <= 10 else "tab20"](index % (10 if count <= 10 else 20))
