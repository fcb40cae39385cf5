"""`glotfuse compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_ROOM = 3
"""Most recipes whose intervals fit a terminal of 80 characters."""


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
    from rich.console import Console

    from glotfuse.cli_models import say
    from glotfuse.comparing import PAGE, compare_all
    from glotfuse.errors import ConfigError
    from glotfuse.evaluation.comparison_table import comparison_results, statements

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
        languages=languages.split(",") if languages else None,
        max_examples=max_examples,
    )
    Console().print(comparison_results(found, scores[score], brief=len(found.recipes) > _ROOM).rich_table())
    for sentence in statements(found):
        typer.echo(sentence)
    say(f"All pairs, with all intervals, are in {out / PAGE}; `glotfuse report {out}` makes a page of them.")
