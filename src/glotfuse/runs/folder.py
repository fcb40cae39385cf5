"""The folder of a run: whose it is, and whether the run in it is finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from glotfuse.errors import CheckpointError
from glotfuse.files import to_json, write_file
from glotfuse.progress import console
from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import recipe_from_dict, to_dict
from glotfuse.run_folder import ADAPTER, RECIPE, STAGES, STATE, TRAINED, is_trained
from glotfuse.training.state import discard_state


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a finished run of this very recipe, whatever is to be measured on it."""
    if not is_trained(folder) or not (folder / RECIPE).exists():
        return False
    return replace(read_recipe(folder), evaluation=recipe.evaluation, device=recipe.device) == recipe


def claim(folder: Path, recipe: Recipe, overwrite: bool) -> None:
    """Makes the folder this run's own, or says whose it is.

    Raises:
        CheckpointError: It holds a finished run, or an interrupted one of another recipe.
    """
    recipe_file = folder / RECIPE
    values = json.loads(json.dumps(to_dict(recipe)))
    if overwrite and folder.exists():
        discard_state(folder / STATE)
        for name in TRAINED:
            (folder / name).unlink(missing_ok=True)
        for name in (STAGES, ADAPTER):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif is_trained(folder):
        raise CheckpointError(
            f"Expected a new folder for this run; {folder} holds a finished one. Choose another with --out, "
            "measure it with `glotfuse eval`, or replace it with --overwrite."
        )
    elif any((folder / name).exists() for name in (STATE, STAGES)) and recipe_file.exists():
        different = _differences(json.loads(recipe_file.read_text("utf8")), values)
        if different:
            raise CheckpointError(
                f"Expected the interrupted run in {folder} to have the same recipe; it differs in "
                f"{', '.join(different)}. Choose another folder with --out, or start anew with --overwrite."
            )
        console.print(f"Going on with the interrupted run in {folder}", style="yellow")
    write_file(recipe_file, to_json(values))


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        CheckpointError: It has none.
    """
    path = folder / RECIPE
    try:
        return recipe_from_dict(json.loads(path.read_text("utf8")), str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"Expected a run folder with {RECIPE}; found none to read in {folder} ({type(error).__name__}). "
            "Give the folder that `glotfuse train` wrote, or name a task with --task."
        ) from None


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found
