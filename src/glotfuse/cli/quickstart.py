"""`glotfuse quickstart`: the fusion in the package reads thirteen languages, then a task is trained on English."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glotfuse import distributed
from glotfuse.cli.options import Device, say, show
from glotfuse.files import write_file
from glotfuse.run_folder import COMPARISON_PAGE

if TYPE_CHECKING:
    from rich.table import Table

    from glotfuse.runs.reading import Reading

READING_PAGE = "reading.md"
_SENTENCES = 6


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the two runs.")] = Path("runs/quickstart"),
    epochs: Annotated[float | None, typer.Option(help="Passes over the 320 English sentences.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Train again where a run is finished.")] = False,
    device: Device = "auto",
) -> None:
    """Read 13 languages with the fusion in the package, then train on English sentences and measure 14 languages.

    Uses the bundled encoder and LM. The recommended recipe stands beside logistic regression on sentence embeddings.
    """
    from glotfuse.api import FusedLM
    from glotfuse.evaluation.report import comparison_table
    from glotfuse.recipes.config import Recipe
    from glotfuse.recipes.loading import QUICKSTART, load_recipe
    from glotfuse.runs.backbones import load_backbones
    from glotfuse.runs.data import task_of
    from glotfuse.runs.folder import finished
    from glotfuse.runs.measuring import measure_run
    from glotfuse.runs.reading import read_languages
    from glotfuse.runs.train import train_run

    started = time.monotonic()
    given = [f"device={device}"] + ([f"training.epochs={epochs}"] if epochs is not None else [])
    own = load_recipe(QUICKSTART, given)
    encoder, lm = load_backbones(own)

    say("\n1. The fusion in the package reads text in any language of the encoder and writes English.")
    assert own.general.from_run is not None
    model = FusedLM.from_pretrained(own.general.from_run, encoder=encoder, lm=lm)
    found = read_languages(model, task_of(own.task), _SENTENCES)
    distributed.once(lambda: write_file(out / READING_PAGE, _page(found)))
    show(_samples(found))
    show(_scores(found))
    say(f"{time.monotonic() - started:.0f} s. All {len(found) * _SENTENCES} outputs are in {out / READING_PAGE}.")

    say("\n2. A task: eight topics, trained on 320 English sentences, measured in every language.")
    reports, titles = [], []
    baseline = Recipe(method="embedding", encoder=own.encoder, task=own.task, device=device)
    pair = [("default", "glotfuse", own), ("embedding", "embeddings + logistic regression", baseline)]
    for name, title, recipe in pair:
        folder = out / name
        say(f"\n{title}: training on English")
        if overwrite or not finished(folder, recipe):
            train_run(recipe, folder, overwrite=overwrite, backbones=(encoder, lm))
        reports.append(measure_run(folder, recipe, (encoder, lm)))
        titles.append(title)
    table = comparison_table(reports, titles)
    distributed.once(lambda: write_file(out / COMPARISON_PAGE, table.to_markdown()))
    show(table.rich_table())
    say(f"The same table is in {out / COMPARISON_PAGE}; predictions and checkpoints are beside it.")
    say(f"{time.monotonic() - started:.0f} s in all.")


def _samples(found: list[Reading]) -> Table:
    from rich.table import Table

    from glotfuse.languages.names import name_of

    table = Table(title="One sentence of each language", show_lines=False)
    table.add_column("Language")
    table.add_column("Text", overflow="fold")
    table.add_column("What the model writes", overflow="fold")
    for number, reading in enumerate(found):
        place = number % len(reading.texts)
        table.add_row(name_of(reading.code), reading.texts[place], reading.outputs[place])
    return table


def _scores(found: list[Reading]) -> Table:
    from rich.table import Table

    from glotfuse.languages.names import name_of

    table = Table(title=f"chrF against the English, {len(found[0].texts)} sentences per language")
    table.add_column("Language")
    for title in ("glotfuse", "a copy", "the LM on the text"):
        table.add_column(title, justify="right")
    for reading in found:
        figures = (reading.scores.chrf, reading.copy.chrf, reading.plain.chrf)
        table.add_row(name_of(reading.code), *(f"{figure:.1f}" for figure in figures))
    means = [
        sum(v) / len(found) for v in zip(*((r.scores.chrf, r.copy.chrf, r.plain.chrf) for r in found), strict=True)
    ]
    table.add_row(f"Average ({len(found)})", *(f"{mean:.1f}" for mean in means), style="bold")
    return table


def _page(found: list[Reading]) -> str:
    lines = ["# What the fusion in the package writes", ""]
    for reading in found:
        scores = reading.scores
        lines += [f"## {reading.code}: chrF {scores.chrf:.1f}, right row found in {scores.found:.0f}%", ""]
        lines += ["| text | English row | output |", "| --- | --- | --- |"]
        rows = zip(reading.texts, reading.references, reading.outputs, strict=True)
        lines += ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)
