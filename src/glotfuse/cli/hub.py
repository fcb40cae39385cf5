"""`glotfuse card` and `glotfuse push`: a run's model card, and the run on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glotfuse.errors import CheckpointError
from glotfuse.run_folder import CARD

RunFolder = Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")]
Licence = Annotated[str | None, typer.Option("--license", help="Of the trained weights, such as apache-2.0.")]


def card(run: RunFolder, license_: Licence = None) -> None:
    """Write the model card of a run, README.md in its folder."""
    from glotfuse.hub.card import check_folder, write_card

    check_folder(run)
    path = write_card(run, license_)
    if path is None:
        raise CheckpointError(
            f"Expected a card that glotfuse wrote, or none, at {run / CARD}; found one that someone changed. "
            "Move it away to have it written anew."
        )
    typer.echo(path)


def push(
    run: RunFolder,
    repo_id: Annotated[str, typer.Argument(help="owner/name on the hub.", metavar="REPO_ID")],
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    license_: Licence = None,
) -> None:
    """Upload a run with its model card to the hub."""
    from glotfuse.hub.push import push_run

    typer.echo(push_run(run, repo_id, private=private, licence=license_))
