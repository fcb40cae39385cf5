"""A `glotfuse serve` in a process of its own, which ends whatever happens, and what can be seen of it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

COMMAND = [sys.executable, "-c", "from glotfuse.cli.main import main; main()"]
_ADDRESS = re.compile(r"at (http://\S+?)/v1 \(engine")
_GRACE = 60.0
"""Seconds that the server gets to end after a SIGTERM."""
IDLE = ("glotfuse_waiting", "glotfuse_running", "glotfuse_streams")
"""Gauges that are zero when nothing is under way."""


class LoadError(Exception):
    """The measurement cannot go on; says why."""


@dataclass
class Server:
    """A server that runs.

    Args:
        process: Its process.
        address: Where it listens, without `/v1`.
        log: What it printed.
    """

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.address, timeout=150)

    @property
    def alive(self) -> bool:
        """Whether the same process still runs and takes requests."""
        try:
            return self.process.poll() is None and self.client.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def resident_mb(self) -> float:
        """Megabytes of memory that the process holds."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(sample.value for sample in self._samples() if sample.name == name)

    def statuses(self, route: str) -> Counter[int]:
        """How often the server says that it answered on a route, by status."""
        counts = Counter[int]()
        for sample in self._samples():
            if sample.name == "glotfuse_requests_total" and sample.labels["route"] == route:
                counts[int(sample.labels["status"])] += int(sample.value)
        return counts

    def under_way(self) -> dict[str, int]:
        """What waits, runs and is being streamed."""
        return {sample.name: int(sample.value) for sample in self._samples() if sample.name in IDLE}

    def is_idle(self, within: float = 10.0) -> bool:
        """Whether nothing waits, runs or is streamed, at the latest after so many seconds."""
        end = time.monotonic() + within
        while any(self.under_way().values()):
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _samples(self) -> list[object]:
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return [sample for family in families for sample in family.samples]


@contextmanager
def serving(arguments: Sequence[str], folder: Path, ready_within: float = 300.0, port: int = 0) -> Iterator[Server]:
    """Starts `glotfuse serve` with these arguments, on a free port or a given one, and stops it in the end.

    Raises:
        LoadError: It does not start; the last lines that it printed are in the message.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "serve", *arguments, "--port", str(port)], stdout=out, stderr=out, start_new_session=True
        )
    try:
        server = Server(process, _address(process, log, ready_within), log)
        with server.client:
            yield server
    finally:
        stop(process)


def _address(process: subprocess.Popen[bytes], log: Path, within: float) -> str:
    end = time.monotonic() + within
    while process.poll() is None and time.monotonic() < end:
        if found := _ADDRESS.search(log.read_text("utf8", "replace")):
            return found[1]
        time.sleep(0.1)
    last = "\n".join(log.read_text("utf8", "replace").splitlines()[-15:])
    raise LoadError(f"Expected the server to listen within {within:.0f} s; it did not. Its last lines:\n{last}")


def stop(process: subprocess.Popen[bytes], grace: float = _GRACE) -> int:
    """Ends a process that leads its own group: politely, then surely. Returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


class Watch(threading.Thread):
    """Reads memory and queue of a server again and again while it works.

    Args:
        server: The server.
        every: Seconds between two readings.
    """

    def __init__(self, server: Server, every: float = 0.5):
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.most: dict[str, int] = dict.fromkeys(IDLE, 0)
        self.unread = 0
        """How often the metrics could not be read."""
        self._server = server
        self._every = every
        self._end = threading.Event()

    def run(self) -> None:
        """Until `finish`."""
        while not self._end.wait(self._every):
            try:
                self.peak_mb = max(self.peak_mb, self._server.resident_mb())
                now = self._server.under_way()
            except (httpx.HTTPError, psutil.Error):
                self.unread += 1
                continue
            self.most = {name: max(self.most[name], now.get(name, 0)) for name in IDLE}

    def finish(self) -> None:
        """Ends it."""
        self._end.set()
        self.join()
