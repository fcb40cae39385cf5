"""`glotfuse inspect`: what the fusion does, as pictures and data; `glotfuse report`: a run, or several, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glotfuse.cli.options import Device, Languages, Run, TaskPath, codes_in, say, show
from glotfuse.errors import ConfigError
from glotfuse.run_folder import read_record

if TYPE_CHECKING:
    from rich.table import Table

    from glotfuse.inspection.results import Inspection
    from glotfuse.inspection.rows import ChosenRows


def inspect(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Option(help="A text to show token by token; repeatable. None shows rows of the task.")
    ] = None,
    languages: Languages = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    max_examples: Annotated[int, typer.Option(help="At most so many rows per language.", min=1)] = 100,
    task_path: TaskPath = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; RUN/inspect unless given.")] = None,
    format: Annotated[str, typer.Option(help="png or svg.")] = "png",
    device: Device = "auto",
) -> None:
    """Show what the fusion does: layer weights, alignment of translations, tokenisation.

    Every picture has its data as JSON beside it.
    """
    from glotfuse.plotting import FORMATS, draw_inspection, missing_scripts
    from glotfuse.plotting.canvas import require_matplotlib
    from glotfuse.plotting.fonts import advice

    if format not in FORMATS:
        raise ConfigError(f"Expected --format {' or '.join(FORMATS)}; found {format!r}.")
    require_matplotlib()  # before minutes of reading

    from glotfuse.api import FusedLM
    from glotfuse.inspection.inspector import inspect_model

    chosen = _rows(run, split, languages, max_examples, task_path, has_texts=bool(texts))
    model = FusedLM.from_pretrained(run, device=device)
    found = inspect_model(
        model,
        run=Path(run).name,
        chosen=chosen,
        split=split if chosen else None,
        texts=texts or (),
        log=read_record(Path(run)).get("log", []),
    )
    folder = out or (Path(run) if Path(run).is_dir() else Path("runs") / Path(run).name) / "inspect"
    paths = draw_inspection(found, folder, format)
    if found.tokenisation:
        show(_table(found))
    scripts = missing_scripts([token for text in found.texts for token in text.tokens])
    for note in [*found.notes, *([advice(scripts)] if scripts else [])]:
        say(note)
    say(f"{len(paths)} pictures and their data are in {folder}: {', '.join(path.name for path in paths)}")


def _rows(
    run: str, split: str, languages: str | None, max_examples: int, task_path: str | None, *, has_texts: bool
) -> ChosenRows | None:
    """Rows of the run's task; None for a checkpoint without a recipe whose texts were given."""
    from dataclasses import replace

    from glotfuse.inspection.rows import choose_rows
    from glotfuse.run_folder import RECIPE
    from glotfuse.runs.data import task_of
    from glotfuse.runs.folder import read_recipe

    if has_texts and not (Path(run) / RECIPE).exists():
        return None
    recipe = read_recipe(Path(run))
    task = task_of(replace(recipe.task, path=task_path) if task_path else recipe.task)
    return choose_rows(task, split, codes_in(languages), max_examples)


def _table(found: Inspection) -> Table:
    """One line per language: tokenisation, and retrieval before, within and after the fusion."""
    from rich.table import Table

    from glotfuse.languages.names import name_of

    aligned = {language.language: language for language in found.alignment.languages} if found.alignment else {}
    pivot = name_of(found.alignment.pivot) if found.alignment else ""
    caption = f"Retrieval: accuracy against {pivot}, mean of both directions" if pivot else None
    table = Table(title=f"{found.run}, {found.split}: tokenisation and retrieval", caption=caption)
    table.add_column("Language", overflow="fold")
    for name in ("Tokens\n/char", "Rela-\ntive", "Unk.\n%", "Cut\n%", "Best\nlayer", "Last\nlayer", "Mixed", "Span"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.tokenisation:
        cells = [
            name_of(row.language),
            f"{row.tokens_per_character:.2f}",
            "" if row.relative_to_pivot is None else f"{row.relative_to_pivot:.2f}",
            f"{100 * row.unknown_rate:.1f}",
            f"{100 * row.truncation_rate:.1f}",
        ]
        if row.language in aligned:
            steps = aligned[row.language]
            values = [layer.retrieval for layer in steps.layers]
            best = max(range(len(values)), key=values.__getitem__)
            cells += [f"{values[best]:.2f} ({best + 1:2d})", f"{values[-1]:.2f}"]
            cells += [f"{steps.mixed.retrieval:.2f}", f"{steps.span.retrieval:.2f}"]
        table.add_row(*cells)
    return table


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, a comparison or a quickstart.", metavar="FOLDER")],
    out: Annotated[Path | None, typer.Option(help="The page's file; report.html in the folder if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a run: test or dev; the measured one if not given.")] = None,
    max_examples: Annotated[int, typer.Option(help="Most mistakes shown of each language.", min=0)] = 20,
) -> None:
    """Write one HTML page that shows a run, a comparison, or the runs inside of a folder side by side.

    The page opens from disk, needs no network, and prints.
    """
    from glotfuse.html_report import write_report

    file = write_report(folder, out or folder / "report.html", split=split, max_examples=max_examples)
    typer.echo(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
