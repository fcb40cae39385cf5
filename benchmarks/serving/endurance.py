"""Ten minutes of a server among hostile networks: is any answer lost, does anything grow?

    python -m benchmarks.serving.endurance [RUN] [--requests 10000] [--minutes 10]

Starts `glotfuse serve`, by default with a tiny random model; on Linux. Bad clients (`bad_networks`) and mixed requests
(`mixed`) come together; then the server is restarted under load. Prints a table; exit code 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.serving.bad_networks import KINDS, Kind, Target, line, misbehave
from benchmarks.serving.mixed import SHARES, Mixed, Tally
from benchmarks.serving.server import Server, serving
from benchmarks.serving.traffic import quickstart_texts

_WARM, _RESTARTS = 0.08, 0.12
"""Shares of the requests before and after the main part."""
_MAIN = 0.65
"""Share of the time for the main part."""
_CLIENTS = 32
_IDLE = 1200
"""Idle connections at once, more than the server keeps."""
_MOST_FILES = 1150
"""That the server may have open: 1000 connections, a few more, and its own."""
_GROWTH_MB = 8.0
"""Of memory in the second half of the main part, that counts as none."""
_GRACE = 40.0
"""Seconds within which a server ends after a signal."""


@dataclass(frozen=True)
class State:
    """What a process holds."""

    mb: float
    files: int
    threads: int

    @classmethod
    def of(cls, server: Server) -> State:
        process = psutil.Process(server.process.pid)
        return cls(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())


class Endurance:
    """The parts of the test.

    Args:
        arguments: Of `glotfuse serve`.
        folder: For logs.
        requests: Mixed ones, over all parts.
        seconds: For all.
        tally: Where outcomes are counted.
        restarts: Under load.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, requests: int, seconds: float, tally: Tally, restarts: int = 3
    ):
        self.tally, self.restarts = tally, restarts
        self.notes: list[str] = []
        self._arguments, self._folder = arguments, folder
        self._requests, self._seconds = requests, seconds
        self._stack = ExitStack()
        self._server = self._stack.enter_context(serving(arguments, folder))
        parts = urlsplit(self._server.address)
        self._target = Target(parts.hostname or "", parts.port or 80)
        self._texts = quickstart_texts()[:40]
        self._enough = False
        self._part = "before the main part"

    def close(self) -> None:
        self._stack.close()

    async def run_within(self, seconds: float) -> None:
        """All parts; where there is no time for all, what has happened until then still counts and is shown."""
        try:
            async with asyncio.timeout(seconds):
                await self.run()
        except TimeoutError:
            self.tally.add("time", f"up {self._part}", False)

    async def run(self) -> None:
        """All parts."""
        warm, last = int(_WARM * self._requests), int(_RESTARTS * self._requests)
        mixed = self._mixed()
        await self._send(mixed, warm, 0)
        brief = [kind for kind in KINDS if kind.seconds(self._target.patience) < 5]
        await asyncio.gather(*(self._misbehave(kind, 0, seed) for seed, kind in enumerate(brief)))
        await mixed.close()
        before = await self._rested()
        self._part = "in the main part"
        await self._main(self._requests - warm - last)
        after = await self._rested()
        self.notes.append(f"memory {before.mb:.0f} MB before, {after.mb:.0f} MB after the main part")
        for name in ("files", "threads"):
            first, then = getattr(before, name), getattr(after, name)
            self.tally.add(f"{name} held when idle", f"{first} before, {then} after", then <= first)
        self._part = "in the restarts"
        await self._restart_under_load(last)

    async def _main(self, count: int) -> None:
        seconds, mixed = _MAIN * self._seconds, self._mixed()
        samples: list[tuple[float, State]] = []
        sampler = asyncio.create_task(self._sample(samples))
        await asyncio.gather(
            self._send(mixed, count, seconds),
            self._crowd(seconds),
            *(self._misbehave(kind, seconds, seed) for seed, kind in enumerate(KINDS)),
        )
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
        await mixed.close()
        took = sorted(mixed.seconds)
        self.notes.append(
            f"mixed requests: p50 {statistics.median(took):.2f} s, p99 {took[int(0.99 * len(took))]:.2f} s, "
            f"longest {took[-1]:.2f} s"
        )
        judge_memory(self.tally, samples, count)
        peaks = (max(getattr(state, name) for _, state in samples) for name in ("mb", "files", "threads"))
        self.notes.append("peaks in the main part: {:.0f} MB, {} open files, {} threads".format(*peaks))

    async def _restart_under_load(self, count: int) -> None:
        mixed = self._mixed()
        sending = asyncio.create_task(self._send(mixed, count, 0, endless=True))
        for _ in range(self.restarts):
            await asyncio.sleep(2)
            mixed.restarting = True
            in_flight, begun, process = mixed.in_flight, time.monotonic(), self._server.process
            process.terminate()
            ended_itself = await self._until(lambda process=process: process.poll() is not None, _GRACE)
            ended = time.monotonic() - begun
            what = f"exit code {process.returncode}"
            again = serving(self._arguments, self._folder, port=self._target.port)
            self._server = await asyncio.to_thread(self._stack.enter_context, again)
            mixed.restarting = False
            self.tally.add("restart under load", what, ended_itself and process.returncode == 0)
            self.notes.append(
                f"restart: {in_flight} requests in flight, ended after {ended:.1f} s, back after "
                f"{time.monotonic() - begun:.1f} s"
            )
        await asyncio.sleep(2)
        self._enough = True
        await sending
        await mixed.close()

    async def _send(self, mixed: Mixed, count: int, seconds: float, endless: bool = False) -> None:
        """So many requests by some clients, spread over the time; endless ones go on until it is enough."""
        begun, numbers = time.monotonic(), iter(range(count) if not endless else range(10**9))
        self._enough = False

        async def client() -> None:
            for number in numbers:
                if endless and number >= count and self._enough:
                    return
                if wait := max(0.0, begun + seconds * number / count - time.monotonic()):
                    await asyncio.sleep(wait)
                await mixed.one()

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))

    async def _misbehave(self, kind: Kind, seconds: float, seed: int) -> None:
        """Rounds of one kind of bad client, as many as there is time for; none of a kind that takes longer."""
        rng, end = random.Random(seed), time.monotonic() + seconds
        needed = kind.seconds(self._target.patience)
        if seconds and needed > seconds:
            self.notes.append(f"not tried: {kind.name} (takes {needed:.0f} s)")
            return
        while True:
            for outcome in await asyncio.gather(*(misbehave(kind, self._target, rng) for _ in range(kind.at_once))):
                self.tally.add(kind.name, outcome.what, outcome.is_right)
            if time.monotonic() + needed + 1 > end:
                return
            await asyncio.sleep(1 if needed > 1 else min(seconds / 100, 2))

    async def _crowd(self, seconds: float) -> None:
        """More idle connections than the server keeps; another client is served all the same."""
        await asyncio.sleep(seconds / 2)
        count = min(_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300)
        name = f"{count} idle connections at once"
        async with AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(line(self._target))
            await asyncio.sleep(2)
            open_files = State.of(self._server).files
            async with line(self._target) as more:
                await more.send(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = await more.some()
            is_right = b" 200 " in answer[:20] and open_files < _MOST_FILES
            self.tally.add(name, f"one more is answered; {open_files} files open", is_right)

    async def _sample(self, samples: list[tuple[float, State]]) -> None:
        while True:
            samples.append((time.monotonic(), State.of(self._server)))
            await asyncio.sleep(0.5)

    async def _rested(self) -> State:
        """What the server holds when nobody asks; connections end a little after their clients."""
        if not await asyncio.to_thread(self._server.is_idle, 20.0):
            self.tally.add("idle afterwards", "something is still under way", False)
        lowest = State.of(self._server)
        for _ in range(20):
            await asyncio.sleep(0.25)
            state = State.of(self._server)
            lowest = State(state.mb, min(lowest.files, state.files), min(lowest.threads, state.threads))
        return lowest

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.05)
        return True

    def _mixed(self) -> Mixed:
        return Mixed(self._server.address, self._texts, self.tally)


def judge_memory(tally: Tally, samples: Sequence[tuple[float, State]], requests: int) -> None:
    """Whether memory grows: a line through the second half of the samples, each with its time."""
    half = samples[len(samples) // 2 :]
    times, sizes = [moment for moment, _ in half], [state.mb for _, state in half]
    growth = statistics.linear_regression(times, sizes).slope * (times[-1] - times[0])
    what = f"{growth:+.1f} MB in the second half ({2000 * growth / requests:+.2f} MB per 1000 requests)"
    tally.add("memory", what, growth < _GROWTH_MB)


def show(console: Console, tally: Tally, notes: Sequence[str]) -> None:
    """Prints what happened, in Markdown."""
    table = Table(box=box.MARKDOWN)
    for name in ("kind", "tried", "what happened", "wrong"):
        table.add_column(name, justify="right" if name in ("tried", "wrong") else "left", no_wrap=True)
    for kind, seen in sorted(tally.seen.items()):
        what = ", ".join(f"{what}: {count}" if count > 1 else what for what, count in seen.most_common(8))
        wrong = tally.wrong.get(kind)
        table.add_row(kind, str(seen.total()), what, str(wrong.total()) if wrong else "0")
    console.print(table)
    for note in notes:
        console.print(f"- {note}", soft_wrap=True)
    for kind, wrong in tally.wrong.items():
        console.print(f"WRONG {kind}: {dict(wrong)}", soft_wrap=True)


def tiny_run(folder: Path) -> Path:
    """A run of tiny random backbones, which are removed when this process ends."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
    from glotfuse.runs.train import train_run
    from small_runs import small_recipe, write_task

    recipe = small_recipe(write_task(folder / "data"), training={"epochs": 1, "evaluations": 1})
    train_run(recipe, folder / "tiny")
    return folder / "tiny"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.endurance", description=__doc__)
    parser.add_argument("run", nargs="?", help="run folder; a tiny random model by default")
    parser.add_argument("--requests", type=int, default=10_000, help="mixed ones; bad clients come beside them")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all")
    parser.add_argument("--restarts", type=int, default=3, help="under load")
    options = parser.parse_args(arguments)
    begun, tally, console = time.monotonic(), Tally(), Console(width=240)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = options.run or str(tiny_run(folder))
        seconds = 60 * options.minutes
        test = Endurance([run, "--device", "cpu"], folder, options.requests, seconds, tally, options.restarts)
        try:
            asyncio.run(test.run_within(seconds - (time.monotonic() - begun)))
        finally:
            test.close()
        logs = "".join(log.read_text("utf8", "replace") for log in sorted(folder.glob("server-*.log")))
    tally.add("server's log", f"{logs.count('Traceback')} tracebacks", "Traceback" not in logs)
    took, sent = time.monotonic() - begun, sum(tally.seen[kind].total() for kind in SHARES if kind in tally.seen)
    tally.add("mixed requests", f"{sent} in {took / 60:.1f} minutes", sent >= options.requests and took <= seconds)
    show(console, tally, test.notes)
    if "Traceback" in logs:
        console.print(logs[logs.index("Traceback") - 500 :][:5000], markup=False)
    return 1 if tally.num_wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
