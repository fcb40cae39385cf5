"""How the time per example grows with span length, label words, batch size and encoder layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Row, alternate
from benchmarks.setting import build, english
from glotfuse.api import FusedLM
from glotfuse.fusion.mixers import TransformerSoftmax
from glotfuse.inputs.batch import PreparedExample
from glotfuse.model import classification

TITLES = {
    "span": "encoder tokens of the text",
    "labels": "label words (all of several tokens)",
    "batch": "texts per batch",
    "layers": "encoder layers (mixer alone, forward and backward)",
}
_FIRST = ("green", "early", "local", "public", "modern", "ancient", "digital", "private", "global", "rural")
_SECOND = ("music", "trade", "medicine", "sport", "housing", "farming", "cinema", "weather", "transport", "history")
_LINEAR = 1.1
"""Greatest exponent that counts as linear: 0.1 is noise."""
_LIMITS = {"span": _LINEAR, "labels": _LINEAR, "batch": 0.1, "layers": _LINEAR}
"""Per example, a larger batch should cost no more."""
_TAIL = 3
"""Largest sizes that the exponent is taken over: at small ones constant costs hide growth."""


def measure_growth(rounds: int) -> dict[str, dict[int, float]]:
    """Seconds per example for each size, by what grows."""
    words = [f"{a} {b}" for a in _FIRST for b in _SECOND]
    model = build(words, instruction="What is this text about?").eval()
    return {
        "span": _lengths(model, rounds),
        "labels": _labels(model, words, rounds),
        "batch": _batches(model, rounds),
        "layers": _layers(rounds),
    }


def _lengths(model: FusedLM, rounds: int) -> dict[int, float]:
    ids = [i for text, _ in english(60) for i in model.encoder.tokenize([text])[0][1:-1]]
    sizes = {n: [PreparedExample([0, *ids[: n - 2], 2])] * 2 for n in (32, 64, 128, 256, 512)}
    _use(model, model.labels[:2])
    return _time({n: lambda rows=rows: classification.classify(model, rows, 2) for n, rows in sizes.items()}, rounds, 2)


def _labels(model: FusedLM, words: Sequence[str], rounds: int) -> dict[int, float]:
    rows = model.prepare([text for text, _ in english(4)])

    def run(count: int) -> None:
        _use(model, words[:count])
        classification.classify(model, rows, len(rows))

    return _time({n: lambda n=n: run(n) for n in (2, 5, 10, 25, 50, 100)}, rounds, len(rows))


def _batches(model: FusedLM, rounds: int) -> dict[int, float]:
    _use(model, model.labels[:2])
    rows = model.prepare([text for text, _ in english(64)])
    found = {}
    for n in (1, 2, 4, 8, 16, 32, 64):
        found.update(_time({n: lambda n=n: classification.classify(model, rows[:n], n)}, rounds, n))
    return found


def _layers(rounds: int) -> dict[int, float]:
    def case(layers: int) -> Callable[[], None]:
        torch.manual_seed(0)
        mixer = TransformerSoftmax(layers, 384)
        states = [torch.randn(8, 48, 384) for _ in range(layers)]
        mask, grad = torch.ones(8, 48, dtype=torch.bool), torch.randn(8, 48, 384)
        return lambda: mixer(states, mask).mixed.backward(grad)

    return _time({layers: case(layers) for layers in (12, 24, 36, 48)}, 3 * rounds, 8)


def _use(model: FusedLM, words: Sequence[str]) -> None:
    model.labels = tuple(words)
    model.label_ids = model.prompt.label_ids(model.labels)


def _time(sides: dict[int, Callable[[], object]], rounds: int, examples: int) -> dict[int, float]:
    seconds = alternate({str(n): side for n, side in sides.items()}, rounds)
    return {n: median(seconds[str(n)]) / examples for n in sides}


def exponent(points: dict[int, float]) -> float:
    """Slope of the straight line through the points on logarithmic axes: 1 is linear growth."""
    xs, ys = [math.log(n) for n in points], [math.log(seconds) for seconds in points.values()]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def growth(short: bool) -> list[Row]:
    """The growth rows."""
    lines = []
    for name, points in measure_growth(1 if short else 3).items():
        sizes = list(points)
        slope = exponent({n: points[n] for n in sizes[-_TAIL:]})
        measure = f"time per example, {sizes[0]} and {sizes[-1]} {TITLES[name]}: exponent of growth"
        first, last, limit = points[sizes[0]], points[sizes[-1]], _LIMITS[name]
        named = {str(n): seconds for n, seconds in points.items()}
        lines.append(Row(measure, first, last, "s", slope, "", f"<= {limit:g}", slope <= limit, named))
    return lines


def plot(found: list[dict[str, float]], path: Path) -> None:
    """One panel for each thing that grows, logarithmic axes, with linear growth as a dashed line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), constrained_layout=True)
    for axis, title, points in zip(axes.flat, TITLES.values(), found, strict=True):
        sizes, milliseconds = [int(n) for n in points], [1000 * seconds for seconds in points.values()]
        axis.loglog(sizes, milliseconds, "o-", label="measured")
        axis.loglog(sizes, [milliseconds[0] * n / sizes[0] for n in sizes], "k--", linewidth=0.8, label="linear")
        axis.set_xlabel(title)
        axis.set_ylabel("ms per example")
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
