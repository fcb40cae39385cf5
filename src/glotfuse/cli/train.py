"""`glotfuse train`, `eval` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from glotfuse.cli.options import Device, Languages, Run, TaskPath, codes_in, say, show
from glotfuse.errors import ConfigError
from glotfuse.run_folder import CARD, COMPARISON_PAGE, report_file

_ROOM = 3
"""Most recipes whose intervals fit a terminal of 80 characters."""


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.", metavar="RECIPE")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.subkey=value, repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that the folder holds.")] = False,
    evaluate: Annotated[bool, typer.Option(help="Measure all languages after training.")] = True,
) -> None:
    """Train what a recipe describes, then measure every language.

    Ctrl-C saves the state after the current step; the same command goes on from there.
    """
    from glotfuse.recipes.loading import load_recipe
    from glotfuse.runs.data import task_of
    from glotfuse.runs.folder import finished
    from glotfuse.runs.measuring import measure_run
    from glotfuse.runs.train import train_run

    values = load_recipe(recipe, set_)
    folder = out or Path("runs") / recipe.stem
    measures = evaluate and bool(task_of(values.task).labels)
    if (
        measures
        and not overwrite
        and finished(folder, values)
        and not report_file(folder, values.evaluation.split).exists()
    ):
        say(f"The run in {folder} is trained; going on with measuring it.")
        backbones = None
    else:
        model = train_run(values, folder, overwrite=overwrite)
        say(f"Saved to {folder}")
        backbones = (model.encoder, model.lm) if model else None
    if measures:
        show(measure_run(folder, values, backbones).rich_table())
    if values.method == "fusion":
        _write_card(folder)


def eval_(
    run: Run,
    languages: Languages = None,
    split: Annotated[str | None, typer.Option(help="test or dev.")] = None,
    task_path: TaskPath = None,
    max_examples: Annotated[int | None, typer.Option(help="At most so many per language.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per forward pass.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a run: accuracy and macro-F1 with 95% confidence intervals for every language."""
    from dataclasses import replace

    from glotfuse.recipes.loading import recipe_from_dict, to_dict
    from glotfuse.runs.folder import read_recipe
    from glotfuse.runs.measuring import measure_run, with_evaluation

    recipe = read_recipe(Path(run))
    if task_path:
        recipe = replace(recipe, task=replace(recipe.task, path=task_path))
    chosen = codes_in(languages)
    recipe = with_evaluation(recipe, languages=chosen, split=split, max_examples=max_examples, batch_size=batch_size)
    recipe = recipe_from_dict({**to_dict(recipe), "device": device}, "options")
    show(measure_run(Path(run), recipe).rich_table())
    if recipe.method == "fusion":
        _write_card(Path(run))


def _write_card(folder: Path) -> None:
    from glotfuse.hub.card import write_card

    if write_card(folder) is None:
        say(f"{folder / CARD} is not glotfuse's own and was left as it is.")


def compare(
    sources: Annotated[
        list[Path], typer.Argument(help="Recipes, or folders of measured runs.", metavar="RECIPE|RUN...")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the result.")] = Path("runs/comparison"),
    seeds: Annotated[int, typer.Option(help="Training runs of each recipe.", min=1)] = 1,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.subkey=value for all recipes.")] = None,
    languages: Annotated[str | None, typer.Option(help="Comma-separated codes; all by default.")] = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    max_examples: Annotated[int | None, typer.Option(help="At most so many rows per language.", min=1)] = None,
    score: Annotated[str, typer.Option(help="What the table shows: accuracy or macro_f1.")] = "accuracy",
) -> None:
    """Compare recipes or finished runs: scores by language with intervals, paired tests, and a statement in words.

    Trains and measures what is missing, one run at a time; Ctrl-C loses nothing, the same command goes on.
    """
    from glotfuse.evaluation.comparison_table import comparison_results, statements
    from glotfuse.runs.comparing import compare_all

    scores: dict[str, Literal["accuracy", "macro_f1"]] = {"accuracy": "accuracy", "macro_f1": "macro_f1"}
    if score not in scores:
        raise ConfigError(f"Expected --score accuracy or macro_f1; found {score!r}.")
    if split not in ("test", "dev"):
        raise ConfigError(f"Expected --split test or dev; found {split!r}.")
    found = compare_all(
        sources,
        out,
        seeds=seeds,
        overrides=set_ or [],
        split=split,
        languages=codes_in(languages),
        max_examples=max_examples,
    )
    show(comparison_results(found, scores[score], brief=len(found.recipes) > _ROOM).rich_table())
    for sentence in statements(found):
        typer.echo(sentence)
    say(f"All pairs, with all intervals, are in {out / COMPARISON_PAGE}; `glotfuse report {out}` makes a page of them.")
