"""The cases: each measures one promise in a process of its own. `python -m benchmarks.cases NAME [--short]`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth import growth
from benchmarks.labelling import classification, many_labels
from benchmarks.measure import Row, alternate, peak_megabytes, row
from benchmarks.recommended import recommended
from benchmarks.steps import memory, step, training
from benchmarks.textbook import TextbookMixer
from glotfuse.fusion.mixers import TransformerSoftmax


def mixer(short: bool) -> list[Row]:
    """transformer_softmax forward and backward at L=24, D=1024, 256 tokens."""
    torch.manual_seed(0)
    ours = TransformerSoftmax(24, 1024)
    textbook = TextbookMixer(ours)
    states = [torch.randn(1, 256, 1024) for _ in range(24)]
    mask = torch.ones(1, 256, dtype=torch.bool)
    grad = torch.randn(1, 256, 1024)

    def run_ours() -> None:
        ours.zero_grad(set_to_none=True)
        ours(states, mask).mixed.backward(grad)

    def run_textbook() -> None:
        textbook.zero_grad(set_to_none=True)
        textbook(states, mask).backward(grad)

    few = torch.ones(1, 8, dtype=torch.bool)
    ours([x[:, :8] for x in states], few).mixed.sum().backward()  # what libraries set up once is not measured
    textbook([x[:, :8] for x in states], few).sum().backward()
    memory = peak_megabytes(run_ours), peak_megabytes(run_textbook)
    seconds = alternate({"ours": run_ours, "textbook": run_textbook}, rounds=3 if short else 9)
    return [
        row("transformer_softmax, time: textbook / ours", seconds["ours"], seconds["textbook"], "s", at_least=25),
        row("transformer_softmax, peak memory: textbook / ours", [memory[0]], [memory[1]], "MB", at_least=10),
    ]


def restart(short: bool) -> list[Row]:
    """A second training run on the same data, in a new process: seconds to the first step, and texts encoded."""
    script = Path(__file__).with_name("second_run.py")
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in (1, 2):
            done = subprocess.run(
                [sys.executable, str(script), folder, str(number)], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    first, second = runs
    begin = second["to_first_step"]
    share = second["encoder"] / first["encoder"]
    start = "start to first step, run 1 and run 2; run 2"
    encoder = "seconds in the encoder, run 1 and run 2"
    return [
        Row(start, first["to_first_step"], begin, "s", begin, "", "<= 15", begin <= 15),
        Row(encoder, first["encoder"], second["encoder"], "s", share, "", "<= 0.05", share <= 0.05),
    ]


CASES: dict[str, Callable[[bool], list[Row]]] = {
    "mixer": mixer,
    "training": training,
    "step": step,
    "memory": memory,
    "classification": classification,
    "many_labels": many_labels,
    "growth": growth,
    "restart": restart,
    "recommended": recommended,
}


def main(arguments: list[str]) -> None:
    found: list[dict[str, Any]] = [line.to_dict() for line in CASES[arguments[0]]("--short" in arguments)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
