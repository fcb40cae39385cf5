"""What a folder is: a run, a comparison or a folder of runs, and which split of a run is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from glotfuse.errors import DataError
from glotfuse.run_folder import COMPARISON, RECIPE, RECORD, advice, reported_splits, runs_in


def kind_of(folder: Path) -> Literal["run", "comparison", "runs"]:
    """What the folder holds; `runs` are those of a quickstart, or of a comparison that has not been made.

    Raises:
        DataError: It holds none of these, or does not exist.
    """
    if (folder / COMPARISON).is_file():
        return "comparison"
    if reported_splits(folder) or (folder / RECORD).is_file():
        return "run"
    expected = (
        f"Expected a run folder (with {RECORD} or report-test.json) or a comparison folder (with {COMPARISON}); found"
    )
    if not folder.is_dir():
        raise DataError(
            f"{expected} {'a file' if folder.exists() else 'nothing'} at {folder}. "
            "Give the folder that `glotfuse train` or `glotfuse compare` wrote."
        )
    if (folder / RECIPE).is_file():
        raise DataError(f"{expected} {folder}. {advice(folder)}")
    if runs_in(folder):
        return "runs"
    names = sorted(path.name for path in folder.iterdir())
    raise DataError(
        f"{expected} {', '.join(names[:8]) or 'an empty folder'} in {folder}. "
        "Give the folder that `glotfuse train` or `glotfuse compare` wrote."
    )


def choose_split(folder: Path, split: str | None) -> str | None:
    """The split whose report is shown: the named one, else test, else the only one; None for a run without reports.

    Raises:
        DataError: The named split has no report.
    """
    found = reported_splits(folder)
    if split is not None and split not in found:
        raise DataError(
            f"Expected report-{split}.json in {folder}; found reports of {', '.join(found) or 'no split'}. "
            f"Measure it with `glotfuse eval {folder} --split {split}`."
        )
    if split is not None or not found:
        return split
    return "test" if "test" in found else found[0]
