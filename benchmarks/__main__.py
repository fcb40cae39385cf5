"""Runs the cases, one process each, and prints a table: `python -m benchmarks [--short] [--json FILE] [CASE ...]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES
from benchmarks.growth import plot


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"out of {', '.join(CASES)}; all by default")
    parser.add_argument("--short", action="store_true", help="fewer rounds, for a check that all runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the growth case into this picture")
    chosen = parser.parse_args()
    unknown = set(chosen.case) - set(CASES)
    if unknown:
        parser.error(f"expected cases out of {', '.join(CASES)}; found {', '.join(sorted(unknown))}")
    console = Console(width=140)
    table = Table(title="glotfuse benchmarks: medians of alternating rounds")
    for name in ("measure", "ours", "other side", "unit", "ratio", "rounds' ratios", "target", "met"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    found, failed = [], []
    for name in chosen.case or CASES:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cases", name, *(["--short"] if chosen.short else [])],
            capture_output=True,
            text=True,
            env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},
            check=False,
        )
        console.print(f"{name}: {time.monotonic() - started:.0f} s", style="dim", highlight=False)
        if done.returncode:
            failed.append(name)
            console.print(done.stderr[-2000:], style="red", markup=False)
            continue
        for line in json.loads(done.stdout.strip().splitlines()[-1]):
            found.append({"case": name, **line})
            table.add_row(
                line["measure"],
                f"{line['first']:.4g}",
                f"{line['second']:.4g}",
                line["unit"],
                f"{line['ratio']:.2f}",
                line["spread"],
                line["target"],
                "yes" if line["met"] else "no",
            )
    console.print(table)
    grown = [line["points"] for line in found if line["points"]]
    if chosen.plot and grown:
        plot(grown, chosen.plot)
    if chosen.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        chosen.json.write_text(json.dumps({"machine": machine, "rows": found}, indent=2) + "\n", "utf8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
