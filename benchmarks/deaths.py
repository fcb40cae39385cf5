"""Kills, and fills the disk of, a command at chosen moments, runs it again, and compares bytes with an untouched one.

`python -m benchmarks.deaths [--moments 20] [--seed 0]`, on Linux, in a few minutes: tiny random backbones, a forked
process for each try. A moment is a file operation (of Python) or a time, drawn over the whole of `glotfuse train`,
which loads, fills the state cache, trains, saves and measures, and over `glotfuse eval`. Where a small file system can
be mounted (as root), a run gets one that is too small, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from deaths import RESULTS, forked, hashes, left_over
from small_runs import small_values, write_task

STAGES = (
    ("run/recipe.json", "claiming"),
    ("cache/features", "opening the state cache"),
    ("run/state", "saving a state"),
    ("run/log.jsonl", "training"),
    ("run/predictions", "measuring"),
    ("run/report", "measuring"),
    ("run/README", "writing the card"),
    ("run/.", "writing the run"),
)


def stage_of(operation: str) -> str:
    """What was being done at an operation, in words."""
    return next((words for place, words in STAGES if place in operation), "starting")


class Tries:
    """Runs one command in many folders of its own; each try is a line of the table."""

    def __init__(self, root: Path, recipe: Path):
        self.root, self.recipe, self.count = root, recipe, 0
        self.table = Table(title="What came out")
        for name in ("moment", "at work on", "ended", "error", "same command", "bytes", "left over"):
            self.table.add_column(name, overflow="fold")
        self.failed = 0
        for _ in range(2):  # the first loads what the others then share
            started, place = time.monotonic(), self.place()
            code, self.operations = forked(self.command("train", place), self.log, watched=place)
            self.seconds = time.monotonic() - started
            assert code == 0, self.log.read_text("utf8")
        self.trained = place / "run"
        self.expected = hashes(self.trained, *RESULTS)

    @property
    def log(self) -> Path:
        return self.root / f"{self.count}.log"

    def place(self) -> Path:
        self.count += 1
        folder = self.root / str(self.count)
        folder.mkdir()
        return folder

    def command(self, name: str, place: Path) -> Callable[[], None]:
        def work() -> None:
            from glotfuse.cli import main as cli

            os.environ["GLOTFUSE_CACHE"] = str(place / "cache")
            what = [str(self.recipe), "--out"] if name == "train" else []
            tail = ["--device", "cpu"] if name == "eval" else []
            sys.argv = ["glotfuse", name, *what, str(place / "run"), *tail]
            cli.main()

        return work

    def again(self, moment: str, place: Path, code: int, at_work: str, command: str = "train") -> None:
        """Starts the same command again, compares, and notes the line."""
        said = self.log.read_text("utf8")
        error = "traceback" if "Traceback" in said else "plain" if "error: " in said else ""
        self.log.unlink()
        second, _ = forked(self.command(command, place), self.log)
        outcome = "goes on" if second == 0 else "fails"
        if code == 0:
            outcome, second = "was done", 0
        elif second and "holds a finished one" in self.log.read_text("utf8"):
            outcome = "asks for `glotfuse eval`"
            second, _ = forked(self.command("eval", place), self.log)
        same = hashes(place / "run", *RESULTS) == self.expected
        left = ", ".join(sorted({Path(name).name[:9] for name in left_over(place)}))
        self.failed += second != 0 or not same
        ended = "killed" if code == -9 else f"exit {code}"
        self.table.add_row(moment, at_work, ended, error, outcome, "same" if same else "DIFFERENT", left)


def die(tries: Tries, moments: int, draw: random.Random) -> None:
    """Kills at file operations and, for what Rust and C write, at times."""
    for number in sorted(draw.sample(range(1, len(tries.operations) + 1), moments - moments // 4)):
        place = tries.place()
        code, done = forked(tries.command("train", place), tries.log, watched=place, die_at=number)
        tries.again(f"kill at operation {number}", place, code, stage_of(done[-1]))
    for seconds in sorted(draw.uniform(0.1, 0.9 * tries.seconds) for _ in range(moments // 4)):
        place = tries.place()
        code, done = forked(tries.command("train", place), tries.log, watched=place, die_after=seconds)
        tries.again(f"kill after {seconds:.2f} s", place, code, stage_of(done[-1]) if done else "starting")


def die_measuring(tries: Tries, moments: int, draw: random.Random) -> None:
    """Kills `glotfuse eval` of a run that is trained and not measured."""

    def unmeasured() -> Path:
        place = tries.place()
        shutil.copytree(tries.trained, place / "run", ignore=shutil.ignore_patterns("predictions", "report-*"))
        return place

    place = unmeasured()
    code, operations = forked(tries.command("eval", place), tries.log, watched=place)
    assert code == 0, tries.log.read_text("utf8")
    for number in sorted(draw.sample(range(1, len(operations) + 1), min(moments, len(operations)))):
        place = unmeasured()
        code, done = forked(tries.command("eval", place), tries.log, watched=place, die_at=number)
        tries.again(f"kill eval at operation {number}", place, code, stage_of(done[-1]), "eval")


def fill(tries: Tries, moments: int, draw: random.Random) -> None:
    """Lets the disk be full from an operation on."""
    for number in sorted(draw.sample(range(1, len(tries.operations) + 1), moments)):
        place = tries.place()
        code, done = forked(tries.command("train", place), tries.log, watched=place, fail_at=number)
        tries.again(f"full from operation {number}", place, code, stage_of(done[number - 1]))


def fill_for_real(tries: Tries, moments: int, draw: random.Random) -> None:
    """Gives a run a disk of its own with too little room, then room enough."""
    for kilobytes in sorted(draw.sample(range(64, 400), moments)):
        place = tries.place()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            shutil.rmtree(place)
            return
        try:
            code, done = forked(tries.command("train", place), tries.log, watched=place)
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            tries.again(f"a disk of {kilobytes} kB", place, code, stage_of(done[-1]))
        finally:
            subprocess.run(["umount", str(place)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deaths", description=__doc__)
    parser.add_argument("--moments", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    import torch

    import glotfuse.hub.card
    import glotfuse.runs.measuring
    import glotfuse.runs.train  # noqa: F401 - imported once, here, and not in every forked process

    torch.set_num_threads(1)
    draw = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory(prefix="glotfuse-deaths-") as folder:
        root = Path(folder)
        parts = {"fusion": {"warm_start": "align"}, "training": {"average": 0.6}, "probe": {"kind": "kernel"}}
        (root / "recipe.json").write_text(json.dumps(small_values(write_task(root / "data"), **parts)), "utf8")
        tries = Tries(root, root / "recipe.json")
        die(tries, chosen.moments, draw)
        die_measuring(tries, chosen.moments, draw)
        fill(tries, chosen.moments, draw)
        fill_for_real(tries, chosen.moments // 2, draw)
        Console(width=140).print(tries.table)
    print(f"{tries.table.row_count} tries, {tries.failed} that failed or ended in other bytes")
    return 1 if tries.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
