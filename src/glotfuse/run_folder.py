"""What a run leaves in its folder: the names of the files, and their readers.

recipe.json          the recipe, checked by `glotfuse.runs.folder`
config.json          how the model is put together, and the hashes of its weights
fusion.safetensors   the fusion; probe.safetensors and adapter/ where there are such
reading.safetensors  the fusion from before a task, for other instructions
embedding.*          in place of these where the method is `embedding`
training.json        the record: data, figures, provenance, log
log.jsonl            every logged figure, while training goes on
state/               for resuming; gone when the run is finished
stages/              earlier stages, each a run folder
predictions/         SPLIT/LANGUAGE.jsonl, a line per measured row
report-SPLIT.json    scores; report-SPLIT.md as a table
README.md            the model card
.lock                which process trains here, held while it does
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glotfuse.errors import CheckpointError, DataError
from glotfuse.files import complete, read_json_lines

RECIPE, CONFIG, RECORD, LOG, CARD = "recipe.json", "config.json", "training.json", "log.jsonl", "README.md"
WEIGHTS, PROBE, ADAPTER = "fusion.safetensors", "probe.safetensors", "adapter"
READING = "reading.safetensors"
EMBEDDING_CONFIG, EMBEDDING_WEIGHTS = "embedding.json", "embedding.safetensors"
STATE, STAGES, LOCK = "state", "stages", ".lock"
TRAINED = (CONFIG, WEIGHTS, PROBE, READING, RECORD, EMBEDDING_CONFIG, EMBEDDING_WEIGHTS)
"""What training leaves at the end, folders apart."""
REPORTS = "report-*.json"
COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.md"
"""What `glotfuse compare` leaves in a folder of its own."""

CHECKPOINT_FORMAT = 1

_MISSING = object()
_OPTIONAL_PARTS: dict[str, tuple[type, ...]] = {
    "encoder": (dict,),
    "lm": (dict,),
    "fusion": (dict,),
    "prompt": (dict,),
    "probe_sha256": (str,),
    "reading_sha256": (str,),
    "adapter": (dict,),
    "reference": (dict,),
}


def report_file(folder: Path, split: str) -> Path:
    """The scores on a split."""
    return folder / f"report-{split}.json"


def predictions_file(folder: Path, split: str, code: str) -> Path:
    """The predictions on a split in one language."""
    return folder / "predictions" / split / f"{code}.jsonl"


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    complete(folder)
    return any((folder / name).exists() for name in (CONFIG, EMBEDDING_CONFIG))


def runs_in(folder: Path) -> list[Path]:
    """Runs inside of a folder that is none itself: of a quickstart, a comparison, or the seeds of a recipe."""
    found = {path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{RECIPE}")}
    return sorted(
        (run for run in found if run.parent.name != STAGES),
        key=lambda run: (str(run.parent), len(run.name), run.name),  # seed-2 before seed-10
    )


def advice(folder: Path) -> str:
    """What to give in place of a folder that is no finished run: the last sentence of an error."""
    if (folder / RECIPE).is_file():
        return "The run in it is unfinished: finish it with the same `glotfuse train` command first."
    runs = runs_in(folder)
    if not runs:
        return "Give the folder that `glotfuse train` wrote."
    names = ", ".join(str(run.relative_to(folder)) for run in runs[:8])
    return f"It holds the runs {names}{', ...' if runs[8:] else ''}: give one of them, such as {runs[0]}."


def reported_splits(folder: Path) -> list[str]:
    """Splits that were measured."""
    return sorted(path.stem.removeprefix("report-") for path in folder.glob(REPORTS))


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where there is no file.

    Raises:
        DataError: The file is damaged or holds something else.
    """
    try:
        values = json.loads(path.read_text("utf8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested without end
        raise DataError(
            f"Expected JSON in {path}; it cannot be read: {error}. Restore the file, or make it again."
        ) from None
    if not isinstance(values, dict):
        raise DataError(
            f"Expected a JSON object in {path}; found {type(values).__name__}. Restore the file, or make it again."
        )
    return values


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run's training; empty where there is none.

    Raises:
        DataError: It is damaged.
    """
    complete(folder)
    return read_object(folder / RECORD)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Figures logged so far, each with its `step`; a line that was torn by a crash is left out."""
    return [line for line in read_json_lines(folder / LOG) if isinstance(line.get("step"), int)]


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or of a newer format.
    """
    complete(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf8"))
    except FileNotFoundError:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"Expected a checkpoint with {CONFIG} in {folder}; found: {found or 'an empty folder'}. {advice(folder)}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Expected JSON in {path}; it is damaged: {error}. Restore or retrain it.") from None
    if not isinstance(config, dict) or not isinstance(config.get("weights_sha256"), str):
        raise CheckpointError(f"Expected the config of a glotfuse checkpoint in {path}; found another JSON file.")
    if config.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"Expected checkpoint format {CHECKPOINT_FORMAT} in {path}; found {config.get('format')!r}. "
            "Update glotfuse."
        )
    check_parts(config, path, {name: kind for name, kind in _OPTIONAL_PARTS.items() if name in config})
    return config


def check_parts(config: Mapping[str, Any], path: Path, kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Refuses a config of whose parts one is missing or of another type.

    Args:
        config: Read from `path`.
        path: For the message.
        kinds: The types that each part may have.

    Raises:
        CheckpointError: With the part, what was expected and what was found.
    """
    for name, allowed in kinds.items():
        value = config.get(name, _MISSING)
        if value is _MISSING or type(value) not in allowed:
            found = "none" if value is _MISSING else f"{type(value).__name__}"
            raise CheckpointError(
                f"Expected {name!r} of the type {' or '.join(kind.__name__ for kind in allowed)} in {path}; found "
                f"{found}. The file was changed or is of another program: restore or retrain it."
            )
