"""The folder of a run: whose it is, and whether the run in it is finished."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from glotfuse.backbones.bundled.store import is_bundled
from glotfuse.errors import CheckpointError
from glotfuse.files import complete, to_json, write_file
from glotfuse.progress import console
from glotfuse.recipes.config import EncoderConfig, Recipe
from glotfuse.recipes.loading import recipe_from_dict, to_dict
from glotfuse.run_folder import ADAPTER, LOCK, RECIPE, REPORTS, STAGES, STATE, TRAINED, advice, is_trained
from glotfuse.training.state import discard_state

_held: dict[Path, FileLock] = {}
"""Locks of the folders that this process trains in; the system gives them back when it ends, however it ends."""


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a finished run of this very recipe, whatever is to be measured on it.

    What is left of the state, where a process died before it had removed all, is removed.
    """
    if not is_trained(folder) or not (folder / RECIPE).exists():
        return False
    if replace(read_recipe(folder), evaluation=recipe.evaluation, device=recipe.device) != recipe:
        return False
    discard_state(folder / STATE)
    return True


def claim(folder: Path, recipe: Recipe, overwrite: bool) -> None:
    """Makes the folder this run's own, or says whose it is.

    It stays locked for other processes until this one claims a folder elsewhere or ends.

    Raises:
        CheckpointError: It holds a finished run, or an interrupted one of another recipe; or another process trains in
            it.
    """
    _hold(folder)
    recipe_file = folder / RECIPE
    values = json.loads(json.dumps(to_dict(recipe)))
    if overwrite and folder.exists():
        complete(folder)  # or what an earlier process had ready would come in later
        discard_state(folder / STATE)
        for name in TRAINED:
            (folder / name).unlink(missing_ok=True)
        for report in folder.glob(REPORTS):  # of weights that are gone; predictions say whose they are
            report.unlink()
            report.with_suffix(".md").unlink(missing_ok=True)
        for name in (STAGES, ADAPTER):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif is_trained(folder):
        discard_state(folder / STATE)  # of a process that died before it did
        raise CheckpointError(
            f"Expected a new folder for this run; {folder} holds a finished one. Choose another with --out, "
            "measure it with `glotfuse eval`, or replace it with --overwrite."
        )
    elif any((folder / name).exists() for name in (STATE, STAGES)) and recipe_file.exists():
        different = _differences(_as_it_was(json.loads(recipe_file.read_text("utf8"))), values)
        if different:
            raise CheckpointError(
                f"Expected the interrupted run in {folder} to have the same recipe; it differs in "
                f"{', '.join(different)}. Choose another folder with --out, or start anew with --overwrite."
            )
        console.print(f"Going on with the interrupted run in {folder}", style="yellow")
    write_file(recipe_file, to_json(values))


def _hold(folder: Path) -> None:
    """Locks the folder, and gives back those of runs that this process has left behind.

    Raises:
        CheckpointError: Another process has it.
    """
    own = folder.absolute()
    for other in [path for path in _held if path not in (own, *own.parents)]:  # a stage's folder is inside its run's
        _held.pop(other).release()
    if own in _held:
        return
    lock = FileLock(own / LOCK, thread_local=False)
    try:
        own.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"Expected no other process to train in {folder}; found {_holder(own / LOCK)} at work there. Wait for it, "
            "end it, or choose another folder with --out."
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks; what cannot be written is said by the next
        return
    _held[own] = lock
    with suppress(OSError):
        (own / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf8")


def _holder(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text("utf8").strip() or "another process"
    return "another process"


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        CheckpointError: It has none.
    """
    path = folder / RECIPE
    try:
        return recipe_from_dict(_as_it_was(json.loads(path.read_text("utf8"))), str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"Expected a run folder with {RECIPE}; found none to read in {folder} ({type(error).__name__}). "
            f"{advice(folder)}"
        ) from None


def _as_it_was(values: Any) -> Any:
    """A recorded recipe, with what a missing setting meant when it was recorded, where its default is another now."""
    encoder = values.get("encoder") if isinstance(values, dict) else None
    if not isinstance(encoder, dict) or "byte_fallback" in encoder:
        return values
    # the vocabularies of bundled encoders have no bytes, so that a run is the same with and without
    meant = is_bundled(str(encoder.get("name", EncoderConfig.name)))
    return {**values, "encoder": {**encoder, "byte_fallback": meant}}


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found
