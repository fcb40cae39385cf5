"""Options and output that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from glotfuse.distributed import is_silent

Languages = Annotated[str | None, typer.Option(help="Comma-separated codes, such as sin_Sinh,yor_Latn.")]
Language = Annotated[str | None, typer.Option(help="Code of the texts' language; NLLB-like encoders need it.")]
TaskPath = Annotated[str | None, typer.Option(help="Other folder with the task's data.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or another torch device.")]
Run = Annotated[str, typer.Argument(help="Run folder or hub id.", metavar="RUN")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; none reads lines from standard input.")]


def codes_in(languages: str | None) -> list[str] | None:
    """The codes of a `--languages` option; None where it was not given."""
    return languages.split(",") if languages else None


def say(text: str) -> None:
    """Prints a remark, apart from results on standard output."""
    if not is_silent():
        typer.echo(text, err=True)


def show(renderable: object) -> None:
    """Prints a table of rich."""
    from rich.console import Console

    Console().print(renderable)
