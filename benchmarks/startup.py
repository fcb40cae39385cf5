"""Seconds of whole commands in fresh processes, and where those of an answer go: `python -m benchmarks.startup`.

The commands take turns. Beside wall seconds stand those of the processor (user and system): on a busy machine they say
more, and on a free core they are nearly the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, row

TEXT = "Мы выиграли матч."
LABELS = ["sports", "politics", "health"]
FUSION = "bundled:e5-small+smollm2-135m"
QUESTION = "Which topic is this text about? Answer with one of: {labels}."
TARGETS = {"--help": 1.0, "models": 3.0, "classify": 4.0}
"""Most seconds of each command, wall and processor, on a free core."""
IN_PYTHON = "from glotfuse import FusedLM; FusedLM.from_pretrained({run!r}, device='cpu').classify([{text!r}])"

Times = tuple[float, float]


def timed(command: list[str]) -> Times:
    """Wall and processor seconds of a command."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-1000:]}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


def in_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Times]]:
    """Times of each command per round; the order changes from round to round, and a first round is not counted."""
    found: dict[str, list[Times]] = {name: [] for name in commands}
    for turn in range(-1, rounds):
        for name in list(commands) if turn % 2 else list(commands)[::-1]:
            times = timed(commands[name])
            if turn >= 0:
                found[name].append(times)
    return found


def rows(found: dict[str, list[Times]]) -> list[Row]:
    """Each command's seconds against its target, and an answer by the command against one in Python."""
    lines = []
    for name, most in TARGETS.items():
        wall, spent = ([times[i] for times in found[name]] for i in (0, 1))
        spread = f"{min(spent):.2f} to {max(spent):.2f}"
        value = median(spent)
        measure = f"glotfuse {name}: wall, processor; processor"
        lines.append(Row(measure, median(wall), value, "s", value, spread, f"<= {most:g}", value <= most))
    command, python = ([times[1] for times in found[name]] for name in ("classify", "in Python"))
    return [*lines, row("one answer, processor: in Python / glotfuse classify", command, python, "s", at_least=1.1)]


def make_run(folder: Path) -> None:
    """The fusion of the package as a run whose labels were trained, so that an answer needs no calibration."""
    from glotfuse import FusedLM

    model = FusedLM.from_pretrained(FUSION, device="cpu")
    prompt = {**model.settings["prompt"], "instruction": QUESTION}
    model.settings = {**model.settings, "labels": LABELS, "prompt": prompt}
    model.save_pretrained(folder)


def parts(run: str, *, light: bool) -> dict[str, Times]:
    """Wall and processor seconds of the parts of a first answer, in this process, which has imported nothing yet."""
    found: dict[str, Times] = {}
    mark = time.perf_counter(), time.process_time()

    def lap(name: str) -> None:
        nonlocal mark
        now = time.perf_counter(), time.process_time()
        found[name] = now[0] - mark[0], now[1] - mark[1]
        mark = time.perf_counter(), time.process_time()

    if light:
        import torch

        from glotfuse.cli.light_imports import import_lightly

        lap("import torch")
        import_lightly()
    else:
        import torch  # noqa: F401

        lap("import torch")
    from transformers.models.bert.modeling_bert import BertModel  # noqa: F401
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: F401

    lap("import transformers and the two model classes")
    from glotfuse.api import FusedLM
    from glotfuse.backbones import loading

    lap("import glotfuse")
    with _added_up(loading, "load_tokenizer") as tokenizers:
        encoder = loading.load_encoder("bundled:e5-small", loading.BackboneOptions(device="cpu"), prefix="query: ")
        lap("encoder")
        lm = loading.load_lm("bundled:smollm2-135m", loading.BackboneOptions(device="cpu"))
        lap("LM, with its checks")
    for name, (wall, spent) in zip(("encoder", "LM, with its checks"), tokenizers, strict=True):
        found[name] = found[name][0] - wall, found[name][1] - spent
    found["tokenizers"] = sum(t[0] for t in tokenizers), sum(t[1] for t in tokenizers)
    model = FusedLM.from_pretrained(run, encoder=encoder, lm=lm)
    lap("fusion")
    model.classify([TEXT])
    lap("first answer")
    model.classify([TEXT])
    lap("second answer")
    return found


@contextmanager
def _added_up(module: Any, name: str) -> Any:
    """Wall and processor seconds of every call of a module's function inside."""
    calls: list[Times] = []
    function: Callable[..., Any] = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter(), time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            calls.append((time.perf_counter() - start[0], time.process_time() - start[1]))

    setattr(module, name, call)
    try:
        yield calls
    finally:
        setattr(module, name, function)


def part_table(run: str, rounds: int) -> Table:
    """Medians of the parts over fresh processes, with all imports and with the command line's."""
    table = Table("part", "all imports: wall", "processor", "light imports: wall", "processor")
    table.title = f"the first answer, seconds, medians of {rounds}"
    sides: dict[str, list[dict[str, Times]]] = {"--all": [], "--light": []}
    for _ in range(rounds):
        for side, measured in sides.items():
            command = [sys.executable, "-m", "benchmarks.startup", "--parts-of", run, side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured.append(json.loads(done.stdout.strip().splitlines()[-1]))
    for name in sides["--all"][0]:
        cells = [median(one[name][i] for one in measured) for measured in sides.values() for i in (0, 1)]
        table.add_row(name, *(f"{cell:.2f}" for cell in cells))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts-of", metavar="RUN", help="print the parts of this process as JSON")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    if chosen.parts_of:
        print(json.dumps(parts(chosen.parts_of, light=chosen.light)))
        return 0
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        made = f"from pathlib import Path; from benchmarks.startup import make_run; make_run(Path({run!r}))"
        timed(["-c", made])  # in a process of its own: this one stays small
        commands = {
            "--help": ["-m", "glotfuse", "--help"],
            "models": ["-m", "glotfuse", "models"],
            "classify": ["-m", "glotfuse", "classify", run, TEXT, "--device", "cpu"],
            "in Python": ["-c", IN_PYTHON.format(run=run, text=TEXT)],
        }
        found = rows(in_turns(commands, chosen.rounds))
        table = Table(title=f"start-up, medians of {chosen.rounds}, load {os.getloadavg()[0]:.1f}")
        for name in ("measure", "first", "second", "unit", "value", "rounds", "target", "met"):
            table.add_column(name, justify="left" if name == "measure" else "right")
        for line in found:
            met = "yes" if line.met else "no"
            figures = f"{line.first:.2f}", f"{line.second:.2f}", line.unit, f"{line.ratio:.2f}"
            table.add_row(line.measure, *figures, line.spread, line.target, met)
        console.print(table)
        console.print(part_table(run, chosen.rounds))
    return 0 if all(line.met for line in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
