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
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glotfuse.errors import CheckpointError, DataError
from glotfuse.files import read_json_lines

RECIPE, CONFIG, RECORD, LOG, CARD = "recipe.json", "config.json", "training.json", "log.jsonl", "README.md"
WEIGHTS, PROBE, ADAPTER = "fusion.safetensors", "probe.safetensors", "adapter"
READING = "reading.safetensors"
EMBEDDING_CONFIG, EMBEDDING_WEIGHTS = "embedding.json", "embedding.safetensors"
STATE, STAGES = "state", "stages"
TRAINED = (CONFIG, WEIGHTS, PROBE, READING, RECORD, EMBEDDING_CONFIG, EMBEDDING_WEIGHTS)
"""What training leaves at the end, folders apart."""
REPORTS = "report-*.json"
COMPARISON, COMPARISON_PAGE = "comparison.json", "comparison.md"
"""What `glotfuse compare` leaves in a folder of its own."""

CHECKPOINT_FORMAT = 1


def report_file(folder: Path, split: str) -> Path:
    """The scores on a split."""
    return folder / f"report-{split}.json"


def predictions_file(folder: Path, split: str, code: str) -> Path:
    """The predictions on a split in one language."""
    return folder / "predictions" / split / f"{code}.jsonl"


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    return any((folder / name).exists() for name in (CONFIG, EMBEDDING_CONFIG))


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
    return read_object(folder / RECORD)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Figures logged so far, each with its `step`; a line that was torn by a crash is left out."""
    return [line for line in read_json_lines(folder / LOG) if isinstance(line.get("step"), int)]


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or of a newer format.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf8"))
    except FileNotFoundError:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"Expected a checkpoint with {CONFIG} in {folder}; found: {found or 'an empty folder'}. "
            "Give the folder that `glotfuse train` wrote."
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
    return config
