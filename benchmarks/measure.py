"""Measuring: alternating timings, medians with spread, and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Row:
    """One line of the table: two sides and the ratio that has a target."""

    measure: str
    """What was measured, with the sides named."""
    first: float
    """The first side's median."""
    second: float
    """The second side's median."""
    unit: str
    """Of both sides."""
    ratio: float
    """What is compared with the target."""
    spread: str
    """Least and greatest ratio of the alternating rounds."""
    target: str
    """Such as `>= 4`; empty where there is none."""
    met: bool
    """Whether the ratio meets it, where there is one."""
    points: dict[str, float] | None = None
    """The second figure by size, for growth."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def row(
    measure: str,
    first: list[float],
    second: list[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Compares two sides measured in turns: the ratio is first / second for `at_most`, else second / first.

    Args:
        measure: Its name.
        first: Ours, one figure per round.
        second: The opponent's, one figure per round.
        unit: Of both, where less is better.
        at_least: How many times ours the opponent should take.
        at_most: How many times the opponent's ours may take.
    """
    rounds = list(zip(first, second, strict=False))
    if at_least is not None:
        ratios = [b / a for a, b in rounds]
        ratio, target = median(second) / median(first), f">= {at_least:g}"
        met = ratio >= at_least
    elif at_most is not None:
        ratios = [a / b for a, b in rounds]
        ratio, target = median(first) / median(second), f"<= {at_most:g}"
        met = ratio <= at_most
    else:
        ratios = [b / a for a, b in rounds]
        ratio, target, met = median(second) / median(first), "", True
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return Row(measure, median(first), median(second), unit, ratio, spread, target, met)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each side per round, the sides in turns; the order changes from round to round.

    Where a GPU is in use, the clock stops when its work is done.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warm_up, rounds):
        names = list(sides) if turn % 2 else list(sides)[::-1]
        for name in names:
            gc.collect()
            wait_for_gpu()
            start = time.perf_counter()
            sides[name]()
            wait_for_gpu()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def wait_for_gpu() -> None:
    """Waits until the work that a GPU was given is done; where none is in use there is none to wait for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_megabytes(run: Callable[[], object], device: str = "cpu") -> float:
    """Greatest growth of the process's resident memory, or of what tensors take on a GPU, while `run` runs, in MB."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        wait_for_gpu()
        return (torch.cuda.max_memory_allocated() - allocated) / 1e6
    _trim()
    before = _resident()
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 1e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE


def _trim() -> None:
    """Gives freed memory back, so that it does not hide what comes next."""
    with contextlib.suppress(OSError, AttributeError):  # another C library: figures are then a little too low
        ctypes.CDLL("libc.so.6").malloc_trim(0)
