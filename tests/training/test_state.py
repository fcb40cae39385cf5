"""The state for resuming: what is torn is never taken for whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from glotfuse.training import trainer as training
from glotfuse.training.state import TrainingInterruptedError, last_state
from small_training import OPTIONS, InterruptAt, fresh, train

OLDER = "checkpoint-5"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a run that was stopped after step 12, with the best state before."""
    folder = tmp_path_factory.mktemp("interrupted") / "state"
    model, examples, dev = fresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", 12)
        with pytest.raises(TrainingInterruptedError):
            train(model, examples, dev, folder, average=0.6, **OPTIONS)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-12", OLDER]
    return folder


def test_the_newest_state_is_taken(interrupted: Path) -> None:
    assert last_state(interrupted) == interrupted / "checkpoint-12"


@pytest.mark.parametrize("damage", ["half", "empty", "a page of zeros"])
def test_a_state_with_any_torn_file_is_passed_over(interrupted: Path, tmp_path: Path, damage: str) -> None:
    """As a machine leaves them that lost its power: it wrote its files in another order than the process."""
    names = [path.name for path in (interrupted / "checkpoint-12").iterdir() if path.name != "training_args.bin"]
    assert {"average.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} < set(names)
    for name in names:
        if damage == "a page of zeros" and not name.endswith(("optimizer.pt", "rng_state.pth")):
            continue  # torch's files have check sums, safetensors' have none
        folder = tmp_path / name
        shutil.copytree(interrupted, folder)
        file = folder / "checkpoint-12" / name
        size = file.stat().st_size
        if damage == "a page of zeros":
            with file.open("r+b") as handle:
                handle.seek(size // 4)
                handle.write(b"\0" * (size // 2))
        else:
            os.truncate(file, size // 2 if damage == "half" else 0)
        assert last_state(folder) == folder / OLDER, name


def test_a_state_without_one_of_its_files_is_passed_over(interrupted: Path, tmp_path: Path) -> None:
    for name in ("trainer_state.json", "fusion.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        folder = tmp_path / name
        shutil.copytree(interrupted, folder)
        (folder / "checkpoint-12" / name).unlink()
        assert last_state(folder) == folder / OLDER, name
