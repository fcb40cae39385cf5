"""Runs Locust: so many clients for so long, then the wait until each has its answer."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.figures import Sent, read_requests
from benchmarks.serving.server import LoadError, stop
from benchmarks.serving.traffic import Workload

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_START_AND_END = 60
"""Seconds that Locust may take beside that."""


@dataclass(frozen=True)
class Generator:
    """Locust.

    Args:
        command: How to call it.
        folder: For its files.
        answer_within: Seconds that an answer may take: more than the server allows, so it is the server who says no.
    """

    command: Sequence[str]
    folder: Path
    answer_within: int = 130

    def version(self) -> str:
        """Of Locust, as it says itself.

        Raises:
            LoadError: It cannot be called.
        """
        try:
            done = subprocess.run([*self.command, "--version"], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise LoadError(f"Expected Locust at {' '.join(self.command)}; found: {error}. {INSTALL}") from None
        found = re.search(r"\d+(\.\d+)+", done.stdout)
        return found[0] if found else done.stdout.strip()

    def send(
        self, address: str, workload: Workload, bodies: Sequence[str], clients: int, seconds: float, pause: float
    ) -> tuple[Sent, float]:
        """Sends requests from so many clients for so long, and waits for the answers.

        Args:
            address: Of the server, without `/v1`.
            workload: How to ask.
            bodies: What to ask, in turn.
            clients: How many; each sends its next request when it has the last one's answer.
            seconds: How long requests are sent.
            pause: Seconds that a client waits after a refusal.

        Returns:
            All requests, and the share of one core that Locust took.

        Raises:
            LoadError: Locust failed, or did not end in time.
        """
        name = f"{workload.name}-{clients}-{time.monotonic_ns()}"
        plan = {
            "route": workload.route,
            "stream": workload.stream,
            "bodies": bodies,
            "pause": pause,
            "timeout": self.answer_within,
            "records": str(self.folder / f"{name}.jsonl"),
        }
        (self.folder / f"{name}.json").write_text(json.dumps(plan), "utf8")
        arguments = ["--headless", "--only-summary", "--host", address, "-f", str(LOCUSTFILE)]
        arguments += ["-u", str(clients), "-r", str(clients), "-t", f"{seconds:.0f}s", "-s", str(self.answer_within)]
        environment = {**os.environ, "GLOTFUSE_LOAD_PLAN": str(self.folder / f"{name}.json")}
        log, before, begun = self.folder / f"{name}.log", _child_seconds(), time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self.command, *arguments, "--exit-code-on-error", "0"],
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds + self.answer_within + _START_AND_END)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                stop(process, 5)
        if code != 0:
            last = "\n".join(log.read_text("utf8", "replace").splitlines()[-10:])
            raise LoadError(f"Expected Locust to end well; found exit code {code}. Its last lines:\n{last}")
        share = (_child_seconds() - before) / (time.monotonic() - begun)
        return read_requests(Path(plan["records"])), share


INSTALL = (
    "Install it in an environment of its own and say where: "
    "python -m venv .locust && .locust/bin/pip install locust, then --locust .locust/bin/locust"
)


def find_locust(given: str | None) -> list[str]:
    """How Locust is called: as given, or from the path, or beside this Python.

    Raises:
        LoadError: There is none.
    """
    beside = Path(sys.executable).with_name("locust")
    found = shutil.which(given or "locust") or (None if given else shutil.which(str(beside)))
    if found is None:
        raise LoadError(f"Expected Locust, the load generator; found none{f' at {given}' if given else ''}. {INSTALL}")
    return [found]


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
