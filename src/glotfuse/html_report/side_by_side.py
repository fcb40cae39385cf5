"""A folder of runs, such as a quickstart leaves, as the comparison of those that were measured."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from glotfuse.errors import DataError
from glotfuse.evaluation.comparison import Contestant, compare
from glotfuse.evaluation.comparison_data import Comparison
from glotfuse.run_folder import advice, read_record, reported_splits, runs_in


def compare_inside(folder: Path, split: str | None = None) -> Comparison:
    """Compares the runs inside of a folder; those in `seed-<n>` folders are seeds of one recipe.

    Args:
        folder: Holds runs, and is none itself.
        split: test or dev; None takes test, else the first that was measured.

    Raises:
        DataError: Fewer than two recipes were measured there, or on different data; the message names the runs.
    """
    measured = {run: reported_splits(run) for run in runs_in(folder)}
    known = sorted({name for found in measured.values() for name in found})
    split = split or ("test" if "test" in known or not known else known[0])
    groups: dict[Path, list[Path]] = defaultdict(list)
    for run in (run for run, found in measured.items() if split in found):
        groups[run.parent if run.name.startswith("seed-") else run].append(run)
    if len(groups) < 2:
        raise DataError(
            f"Expected a run, a comparison, or two recipes or more that were measured on {split}, in {folder}; found "
            f"{len(groups)} of these. {advice(folder)}"
        )
    try:
        return compare([_contestant(place.name, runs) for place, runs in groups.items()], split)
    except DataError as error:
        raise DataError(f"Expected runs in {folder} that can stand side by side. {error} {advice(folder)}") from None


def _contestant(name: str, runs: list[Path]) -> Contestant:
    records = [read_record(run) for run in runs]
    recipes = [record.get("recipe") or {} for record in records]
    trainings = [recipe.get("training") or {} for recipe in recipes]
    random = any(recipe.get("method", "fusion") == "fusion" for recipe in recipes) and any(
        training.get("epochs", 1) for training in trainings
    )
    seeds = [int(training.get("seed", 0)) for training in trainings]
    return Contestant(name, runs, seeds, [record.get("seconds") for record in records], random=random)
