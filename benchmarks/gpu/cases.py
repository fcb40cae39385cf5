"""The cases, one process each: `python -m benchmarks.gpu.cases NAME ...`, which prints a line of JSON for every part.

A process of its own per case, for an error on a GPU can leave the whole process unable to use it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import Check
from benchmarks.gpu.configs import MT5_LARGE, MT5_XL, PAIRS, Config
from benchmarks.gpu.correctness import correctness
from benchmarks.gpu.parts import FULL, PARTS, SMALL, Bench, mixer
from benchmarks.measure import Row

MARK = "glotfuse-gpu:"
"""Begins every line of JSON; libraries may print lines of their own."""
ROOT = Path(__file__).parents[2]
TESTS = "tests/backbones/test_hardware.py"
TEST_NAME = "test_every_family_learns_and_answers_in_bfloat16"
"""The default test whose models stand on `GLOTFUSE_TEST_DEVICE`."""

Found = Row | Check | str
"""A measurement, a comparison, or what was left out, in words."""
Part = Callable[[], Iterator[Found]]


class Skipped(Exception):
    """A part that cannot be run here, and why."""


def case_parts(case: str, device: torch.device, small: bool) -> dict[str, Part]:
    """The parts of a case by name; nothing is computed yet."""
    sizes = SMALL if small else FULL
    if case == "mixer":
        widths = {"mt5-large": MT5_LARGE, "mt5-xl": MT5_XL}
        return {f"mixer {name}": _mixer(name, config, device, small) for name, config in widths.items()}
    if case == "tests":
        return {"families": lambda: family_tests(device, small)}
    pair = PAIRS[case].small() if small else PAIRS[case]
    bench = Bench(pair, device, sizes)
    parts: dict[str, Part] = {"correctness": lambda: correctness(pair.shallow(), device)}
    return parts | {name: _bound(part, bench) for name, part in PARTS.items()}


CASES = ("mixer", *PAIRS, "tests")


def _mixer(name: str, config: Config, device: torch.device, small: bool) -> Part:
    num_layers, width = (3, 64) if small else (config["num_layers"], config["d_model"])
    return lambda: mixer(name, num_layers, width, device, SMALL if small else FULL)


def _bound(part: Callable[[Bench], Iterator[Found]], bench: Bench) -> Part:
    return lambda: part(bench)


def family_tests(device: torch.device, small: bool) -> Iterator[Found]:
    """The default test that runs tiny models of every family in bfloat16, on this device."""
    if importlib.util.find_spec("pytest") is None:
        raise Skipped(f"pytest is not installed; GLOTFUSE_TEST_DEVICE={device.type} pytest {TESTS} -k {TEST_NAME}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
    only = f"{TEST_NAME} and xlm-r-qwen3" if small else TEST_NAME
    done = subprocess.run(
        [*command, "-k", only],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "GLOTFUSE_TEST_DEVICE": device.type},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The tests did not pass:\n{done.stdout[-1500:]}{done.stderr[-500:]}")
    yield f"tests passed on {device.type}: {done.stdout.strip().splitlines()[-1]}"


def run_case(
    parts: dict[str, Part], seconds: float, needed: dict[str, float], say: Callable[[dict[str, Any]], None]
) -> None:
    """Runs parts one after another; one that fails or no longer fits does not stop the others.

    Args:
        parts: By name.
        seconds: How long they may take together.
        needed: What parts of these names took elsewhere, in seconds.
        say: Takes what came of each.
    """
    end = time.monotonic() + seconds
    for name, part in parts.items():
        left = end - time.monotonic()
        if left < needed.get(name, 0.0) or left <= 0:
            why = f"{max(left, 0):.0f} s left, {needed.get(name, 0.0):.0f} s needed"
            say({"part": name, "skipped": f"no longer fits: {why}"})
            continue
        started = time.monotonic()
        said: dict[str, Any] = {"part": name, "rows": [], "checks": [], "notes": []}
        try:
            for found in part():
                kind = "rows" if isinstance(found, Row) else "checks" if isinstance(found, Check) else "notes"
                said[kind].append(found if isinstance(found, str) else found.to_dict())
        except Skipped as reason:
            said["skipped"] = str(reason)
        except Exception as error:  # whatever goes wrong on a new device is what this is for
            said["error"] = f"{type(error).__name__}: {error}"
            said["traceback"] = "".join(traceback.format_exception(error)[-4:])
        if torch.cuda.is_initialized() and "error" not in said:
            torch.cuda.empty_cache()
        say({**said, "seconds": time.monotonic() - started})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.cases", description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--needed", type=json.loads, default={})
    chosen = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    gc.freeze()  # as in `Bench.model`
    parts = case_parts(chosen.case, torch.device(chosen.device), chosen.small)
    run_case(parts, chosen.seconds, chosen.needed, lambda said: print(MARK + json.dumps(said), flush=True))


if __name__ == "__main__":
    main()
