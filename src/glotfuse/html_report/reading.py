"""What a folder is: a run or a comparison, and which split of a run is shown."""

from __future__ import annotations

from pathlib import Path

from glotfuse.errors import DataError
from glotfuse.run_folder import COMPARISON, RECIPE, RECORD, reported_splits


def is_comparison(folder: Path) -> bool:
    """Whether the folder holds a comparison; False for a run.

    Raises:
        DataError: It holds neither, or does not exist.
    """
    if (folder / COMPARISON).is_file():
        return True
    if reported_splits(folder) or (folder / RECORD).is_file():
        return False
    expected = (
        f"Expected a run folder (with {RECORD} or report-test.json) or a comparison folder (with {COMPARISON}); found"
    )
    if not folder.is_dir():
        raise DataError(
            f"{expected} {'a file' if folder.exists() else 'nothing'} at {folder}. "
            "Give the folder that `glotfuse train` or `glotfuse compare` wrote."
        )
    if (folder / RECIPE).is_file():
        raise DataError(
            f"{expected} an unfinished run in {folder}. Finish it with the same `glotfuse train` command first."
        )
    inside = sorted(p.parent.name for p in folder.glob(f"*/{RECIPE}"))
    if inside:
        raise DataError(
            f"{expected} a folder of runs, {', '.join(inside[:8])}, in {folder}. "
            "Give one of them, or put them side by side with `glotfuse compare` first."
        )
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
