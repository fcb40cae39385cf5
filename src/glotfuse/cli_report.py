"""`glotfuse report`: one self-contained HTML page for a run or a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "Examples: `glotfuse report runs/sib200 --out sib200.html`, `glotfuse report runs/comparison`"


def report(
    folder: Annotated[Path, typer.Argument(help="Run folder or comparison folder.", metavar="RUN_OR_COMPARISON")],
    out: Annotated[Path | None, typer.Option(help="The page's file; report.html in the folder if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a run: test or dev; the measured one if not given.")] = None,
    max_examples: Annotated[int, typer.Option(help="Most mistakes shown of each language.", min=0)] = 20,
) -> None:
    """Write one HTML page that shows a run or a comparison.

    The page opens from disk, needs no network, and prints.
    """
    from glotfuse.html_report import write_report

    file = write_report(folder, out or folder / "report.html", split=split, max_examples=max_examples)
    typer.echo(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
