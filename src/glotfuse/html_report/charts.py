"""Geometry of the line charts that the page draws as SVG: scales, ticks, thinned lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 240
"""Size of a chart in SVG units; text in it stays readable on a phone."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 36
_MOST_POINTS = 300

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in SVG units."""

    position: float
    label: str


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: Shown in the legend.
        style: CSS class: `first` or `second`.
        points: SVG coordinates in drawing order.
        dots: Whether each point is marked.
    """

    name: str
    style: str
    points: tuple[Point, ...]
    dots: bool

    @property
    def path(self) -> str:
        """The points as the value of a polyline."""
        return " ".join(f"{x},{y}" for x, y in self.points)


@dataclass(frozen=True)
class LineChart:
    """A chart of lines over steps, ready to be drawn.

    Attributes:
        title: What it shows.
        description: The same in a sentence, for screen readers.
        lines: The lines.
        x_ticks: Steps.
        y_ticks: Values.
        mark: Position of the chosen step, where there is one.
    """

    title: str
    description: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    mark: Tick | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values, 1, 2 or 5 times a power of ten apart, that cover `low` to `high` in at most `most` steps."""
    span = high - low or abs(high) or 1.0
    exponent = math.floor(math.log10(span / most))
    steps = (factor * 10.0**power for power in range(exponent, exponent + 3) for factor in (1, 2, 5))
    step = next(s for s in steps if math.ceil(high / s) - math.floor(low / s) <= most)
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def line_chart(
    title: str,
    series: Sequence[tuple[str, str, Sequence[Point], bool]],
    *,
    mark: float | None = None,
    as_percent: bool = False,
) -> LineChart | None:
    """Lays out lines over steps; None when no line has a point.

    Args:
        title: What the chart shows.
        series: Name, style, (step, value) points and whether to mark them with dots, for each line. Points that are
            not finite are left out; of long lines, means of neighbouring points are drawn.
        mark: A step to mark.
        as_percent: Whether values are fractions to label as percent, on a scale from 0 to 100.
    """
    kept = [
        (name, style, thinned([p for p in points if all(map(math.isfinite, p))]), dots)
        for name, style, points, dots in series
    ]
    kept = [line for line in kept if line[2]]
    if not kept:
        return None
    xs = [x for line in kept for x, _ in line[2]]
    ys = [y for line in kept for _, y in line[2]]
    x_values = [value for value in ticks(min(0.0, *xs), max(xs)) if value == int(value)]
    y_values = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] if as_percent else ticks(min(0.0, *ys), max(ys))
    x_scale = _Scale(min(0.0, *xs), max(*xs, 1.0), _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(y_values[0], y_values[-1], HEIGHT - _BOTTOM, _TOP)
    lines = tuple(
        Line(name, style, tuple((x_scale(x), y_scale(y)) for x, y in points), dots)
        for name, style, points, dots in kept
    )
    ends = "; ".join(f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, _, points, _ in kept)
    return LineChart(
        title,
        f"{title} over steps: {ends}.",
        lines,
        tuple(Tick(x_scale(v), f"{v:.0f}") for v in x_values if v <= x_scale.high),
        tuple(Tick(y_scale(v), f"{v * 100:.0f}" if as_percent else f"{v:g}") for v in y_values),
        None if mark is None else Tick(x_scale(mark), f"{mark:.0f}"),
    )


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` points: means of equally many neighbours, or the points themselves where they are few."""
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


@dataclass(frozen=True)
class _Scale:
    """A linear map from values to SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)
