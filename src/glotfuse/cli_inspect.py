"""`glotfuse inspect`: what the fusion does, as pictures and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glotfuse.cli_models import say
from glotfuse.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from glotfuse.config import Recipe
    from glotfuse.inspection import ChosenRows, Inspection

EPILOG = (
    "Examples: `glotfuse inspect runs/quickstart/default --languages sin_Sinh,tam_Taml`, "
    '`glotfuse inspect RUN --texts "The economy is growing." --texts "ආර්ථිකය වර්ධනය වෙමින් පවතී."`'
)


def inspect(
    run: Annotated[str, typer.Argument(help="Run folder or hub id.", metavar="RUN")],
    texts: Annotated[
        list[str] | None, typer.Option(help="A text to show token by token; repeatable. None shows rows of the task.")
    ] = None,
    languages: Annotated[str | None, typer.Option(help="Comma-separated codes, such as sin_Sinh,yor_Latn.")] = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    max_examples: Annotated[int, typer.Option(help="At most so many rows per language.", min=1)] = 100,
    task_path: Annotated[str | None, typer.Option(help="Other folder with the task's data.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; RUN/inspect unless given.")] = None,
    format: Annotated[str, typer.Option(help="png or svg.")] = "png",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or another torch device.")] = "auto",
) -> None:
    """Show what the fusion does: layer weights, alignment of translations, tokenisation.

    Every picture has its data as JSON beside it.
    """
    from glotfuse.plotting import FORMATS, draw_inspection
    from glotfuse.plotting.canvas import require_matplotlib

    if format not in FORMATS:
        raise ConfigError(f"Expected --format {' or '.join(FORMATS)}; found {format!r}.")
    require_matplotlib()  # before minutes of reading

    from rich.console import Console

    from glotfuse.inspection import inspect_model
    from glotfuse.model import FusedLM

    chosen = _rows(run, split, languages, max_examples, task_path, has_texts=bool(texts))
    model = FusedLM.from_pretrained(run, device=device)
    found = inspect_model(
        model,
        run=Path(run).name,
        chosen=chosen,
        split=split if chosen else None,
        texts=texts or (),
        log=_training_log(Path(run)),
    )
    folder = out or (Path(run) if Path(run).is_dir() else Path("runs") / Path(run).name) / "inspect"
    paths = draw_inspection(found, folder, format)
    if found.tokenisation:
        Console().print(_table(found))
    for note in [*found.notes, *_font_notes(found)]:
        say(note)
    say(f"{len(paths)} pictures and their data are in {folder}: {', '.join(path.name for path in paths)}")


def _rows(
    run: str, split: str, languages: str | None, max_examples: int, task_path: str | None, *, has_texts: bool
) -> ChosenRows | None:
    """Rows of the run's task; None for a checkpoint without a recipe whose texts were given."""
    from dataclasses import replace

    from glotfuse.inspection import choose_rows
    from glotfuse.run_data import task_of
    from glotfuse.runs import RECIPE, read_recipe

    if has_texts and not (Path(run) / RECIPE).exists():
        return None
    recipe: Recipe = read_recipe(Path(run))
    task = task_of(replace(recipe.task, path=task_path) if task_path else recipe.task)
    return choose_rows(task, split, languages.split(",") if languages else None, max_examples)


def _training_log(folder: Path) -> list[dict[str, Any]]:
    """The log in the run's record; empty where there is none."""
    from glotfuse.checkpoint import RECORD

    try:
        log = json.loads((folder / RECORD).read_text("utf8"))["log"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return log if isinstance(log, list) else []


def _font_notes(found: Inspection) -> list[str]:
    from glotfuse.plotting import missing_scripts
    from glotfuse.plotting.fonts import advice

    scripts = missing_scripts([token for text in found.texts for token in text.tokens])
    return [advice(scripts)] if scripts else []


def _table(found: Inspection) -> Table:
    """One line per language: tokenisation, and retrieval before, within and after the fusion."""
    from rich.table import Table

    from glotfuse.evaluation.languages import name_of

    aligned = {language.language: language for language in found.alignment.languages} if found.alignment else {}
    pivot = name_of(found.alignment.pivot) if found.alignment else ""
    caption = f"Retrieval: accuracy against {pivot}, mean of both directions" if pivot else None
    table = Table(title=f"{found.run}, {found.split}: tokenisation and retrieval", caption=caption)
    table.add_column("Language", overflow="fold")
    for name in ("Tokens\n/char", "Rela-\ntive", "Unk.\n%", "Cut\n%"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("Best\nlayer", "Last\nlayer", "Mixed", "Span"):
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
            stages = aligned[row.language]
            values = [layer.retrieval for layer in stages.layers]
            best = max(range(len(values)), key=values.__getitem__)
            cells += [f"{values[best]:.2f} ({best + 1:2d})", f"{values[-1]:.2f}"]
            cells += [f"{stages.mixed.retrieval:.2f}", f"{stages.span.retrieval:.2f}"]
        table.add_row(*cells)
    return table
