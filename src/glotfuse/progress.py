"""Progress of long work on the terminal, and a way to stop it that loses nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from glotfuse.distributed import is_silent, launched

console = Console(stderr=True, quiet=is_silent())
_ONE_REQUEST_SECONDS = 1.0


class Bar:
    """A progress bar with a note (loss, examples/s) and the time left; plain lines when not on a terminal.

    Args:
        title: What is being done.
        total: Units of work.
        unit: Their name, for the rate.
    """

    _LINES = 10

    def __init__(self, title: str, total: int, unit: str = "examples"):
        self.title, self.total, self.unit = title, total, unit
        self._done = 0
        self._note = ""
        self._started = time.monotonic()
        self._rich: Progress | None = None
        self._next_line = 0.0
        if console.is_terminal:
            self._rich = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=False,
            )

    def __enter__(self) -> Bar:
        self._started = time.monotonic()
        if self._rich is not None:
            self._rich.start()
            self._task = self._rich.add_task(self.title, total=self.total, note="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._rich is not None:
            self._rich.stop()

    def advance(self, amount: int, note: str = "") -> None:
        """Adds finished units and replaces the note where one is given."""
        self._done += amount
        self._note = note or self._note
        elapsed = max(time.monotonic() - self._started, 1e-6)
        rate = self._done / elapsed
        text = f"{self._note + '  ' if self._note else ''}{rate:.1f} {self.unit}/s"
        if self._rich is not None:
            self._rich.update(self._task, completed=self._done, note=text)
        elif self.total and self._done / self.total >= self._next_line:
            left = max(self.total - self._done, 0) / max(rate, 1e-9)
            console.print(
                f"{self.title}: {self._done}/{self.total}  {text}  {elapsed:.0f} s, {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )
            self._next_line = self._done / self.total + 1.0 / self._LINES

    def extend(self, amount: int) -> None:
        """Adds units to the total, or takes away (negative) those that an earlier run has done."""
        self.total += amount
        if self._rich is not None:
            self._rich.update(self._task, total=self.total)


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def graceful_interrupt(message: str) -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request that the work reads at its next safe point.

    Where a launcher started several processes, signals within a second count as one: terminal and launcher may both
    send them.

    Args:
        message: Shown at the first.
    """
    request = StopRequest()
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal first
        if request.requested:
            if launched() and time.monotonic() - first < _ONE_REQUEST_SECONDS:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        request.requested = True
        console.print(f"\n{message}", style="yellow")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
