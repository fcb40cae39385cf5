"""glotfuse on a GPU, without a network: is it right there, and how fast? `python -m benchmarks.gpu`.

Random weights of real configurations are made on the device. The exit code is 1 where a check or a part failed; a
missed target is in the table and changes no exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu.cases import CASES, MARK, ROOT, case_parts
from glotfuse.provenance import hardware, versions

COLUMNS = ("case", "measure", "ours", "other side", "unit", "ratio", "rounds' ratios", "target", "met")
DEVICES = ("cuda", "cpu")


def machine(device: str) -> dict[str, str]:
    """Card, driver and versions, as text."""
    found = {**hardware(), **versions()}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found["card"] = f"{card.name}, {card.total_memory / 1e9:.0f} GB, compute capability {card.major}.{card.minor}"
        found["driver"] = _driver()
        found["torch was built for"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"{torch.version.hip}"
        found["bfloat16"] = str(torch.cuda.is_bf16_supported())
    return {name: str(value) for name, value in found.items()}


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__}: {error})"
    return done.stdout.strip().splitlines()[0]


def run_in_process(
    case: str, device: str, small: bool, seconds: float, needed: dict[str, float], say: Callable[[dict[str, Any]], None]
) -> None:
    """Runs a case in a process of its own.

    Args:
        case: Its name.
        device: `cuda` or `cpu`.
        small: Whether configurations are tiny.
        seconds: When the process is ended.
        needed: Seconds of parts that were run before, by name.
        say: Takes what came of each part, those included that the process did not live to see.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.cases", case, "--device", device, *(["--small"] if small else [])]
    command += ["--seconds", str(seconds), "--needed", json.dumps(needed)]
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    late = threading.Event()
    waiting = list(case_parts(case, torch.device(device), small))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        )

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started: the tests

        def end_late() -> None:
            late.set()
            end()

        timer = threading.Timer(seconds, end_late)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    said = json.loads(line.removeprefix(MARK))
                    waiting.remove(said["part"])
                    say(said)
            process.wait()
        finally:  # also on Ctrl-C, which a session of its own does not hear
            timer.cancel()
            end()
        errors.seek(0)
        last = errors.read()[-1500:]
    for number, name in enumerate(waiting):
        if late.is_set():
            say({"part": name, "skipped": "the time was up" + ("" if number else " while it ran")})
        elif number == 0:
            say({"part": name, "error": f"the process ended with code {process.returncode}", "traceback": last})
        else:
            say({"part": name, "skipped": "the process had ended"})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="where to run; cpu is for a rehearsal")
    parser.add_argument("--small", action="store_true", help="tiny configurations of the same families")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be given several times")
    parser.add_argument("--json", type=Path, help="also write all that was found to this file")
    parser.add_argument("--minutes", type=float, default=8.0, help="what no longer fits is skipped")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("expected a GPU that torch can use; found none. Rehearse with --device cpu --small.")
    started = time.monotonic()
    console = Console(width=170, highlight=False, markup=False)
    about = machine(chosen.device)
    for name, value in about.items():
        console.print(f"{name}: {value}")
    found: list[dict[str, Any]] = []
    needed: dict[str, float] = {}
    for case in chosen.case or CASES:

        def say(line: dict[str, Any], case: str = case) -> None:
            tell(console, case, line)
            found.append({"case": case, **line})
            if "error" not in line and "skipped" not in line:
                needed[line["part"]] = max(line["seconds"], needed.get(line["part"], 0.0))

        left = 60 * chosen.minutes - (time.monotonic() - started)
        if left > 0:
            run_in_process(case, chosen.device, chosen.small, left, needed, say)
            continue
        for part in case_parts(case, torch.device(chosen.device), chosen.small):
            say({"part": part, "skipped": "the time was up"})
    if chosen.small or chosen.device == "cpu":
        console.print("A rehearsal: the ratios of tiny models, or of a CPU, say nothing about a GPU.", style="yellow")
    code = summarise(console, found, time.monotonic() - started)
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"machine": about, "found": found, "exit_code": code}, indent=2) + "\n", "utf8"
        )
    return code


def tell(console: Console, case: str, line: dict[str, Any]) -> None:
    """One part's lines, as soon as it is done."""
    title = f"{case}, {line['part']}"
    if "error" in line:
        console.print(f"{title}: FAILED, {line['error']}\n{line['traceback']}", style="red")
    elif "skipped" in line:
        console.print(f"{title}: skipped, {line['skipped']}", style="yellow")
    else:
        checks = line["checks"]
        passed = f", {sum(check['passed'] for check in checks)} of {len(checks)} checks passed" if checks else ""
        console.print(f"{title}: {line['seconds']:.1f} s{passed}")
    for note in line.get("notes", ()):
        console.print(f"  {note}")
    for check in line.get("checks", ()):
        if not check["passed"]:
            console.print(f"  FAILED: {check['name']}: {check['found']:.3g}, at most {check['bound']:g}", style="red")


def summarise(console: Console, found: list[dict[str, Any]], seconds: float) -> int:
    """Prints the table, what was skipped and what failed; returns the exit code."""
    table = Table(title="medians of alternating rounds")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("case", "measure") else "right", overflow="fold")
    rows = [(line["case"], row) for line in found for row in line.get("rows", ())]
    for case, row in rows:
        met = "" if not row["target"] else "yes" if row["met"] else "no"
        values = [f"{row['first']:.4g}", f"{row['second']:.4g}", row["unit"], f"{row['ratio']:.2f}", row["spread"]]
        table.add_row(case, row["measure"], *values, row["target"], met)
    console.print(table)
    checks = [check for line in found for check in line.get("checks", ())]
    wrong = [check["name"] for check in checks if not check["passed"]]
    failed = [f"{line['case']}, {line['part']}" for line in found if "error" in line]
    skipped = [f"{line['case']}, {line['part']}" for line in found if "skipped" in line]
    missed = sum(not row["met"] for _, row in rows)
    console.print(
        f"{len(checks)} checks, {len(wrong)} failed; {len(rows)} measures, {missed} targets missed; {seconds:.0f} s"
    )
    for title, names in (("checks failed", wrong), ("parts failed", failed), ("skipped", skipped)):
        if names:
            console.print(f"{title}:", *(f"  {name}" for name in names), sep="\n")
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
