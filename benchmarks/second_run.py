"""One small training run, as the command line starts it; prints the seconds to its first step and in the encoder.

`python second_run.py FOLDER NUMBER`: the cache of encoder states is in the folder, and empty for the first run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def main(folder: Path, number: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.setting import SIB200
    from glotfuse.backbones import Encoder
    from glotfuse.files import cache_dir
    from glotfuse.recipes.loading import recipe_from_dict
    from glotfuse.runs import train as runs
    from glotfuse.training import trainer as training

    models = cache_dir() / "models"
    os.environ["GLOTFUSE_CACHE"] = str(folder)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(models)
    seconds = {"to_first_step": 0.0, "encoder": 0.0}
    forward, step = Encoder.forward, training.FusionTrainer.training_step

    def timed_forward(*arguments: object) -> object:
        start = time.perf_counter()
        states = forward(*arguments)
        seconds["encoder"] += time.perf_counter() - start
        return states

    def timed_step(*arguments: object, **options: object) -> object:
        seconds["to_first_step"] = seconds["to_first_step"] or time.perf_counter() - STARTED
        return step(*arguments, **options)

    Encoder.forward, training.FusionTrainer.training_step = timed_forward, timed_step
    task: dict[str, object] = {"max_train_examples": 96, "max_dev_examples": 32}
    task |= {"name": "sib200", "path": str(SIB200)} if SIB200.exists() else {"name": "quickstart"}
    recipe = recipe_from_dict({"task": task, "training": {"epochs": 1, "evaluations": 1}})
    runs.train_run(recipe, folder / f"run{number}")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
