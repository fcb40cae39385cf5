"""Small recipes on tiny backbones and a little data, for tests of training, evaluation and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import recipe_from_dict
from tiny import encoder_folder, lm_folder

SPORTS = "The team won match number {i} in the last minute of the game.\tsports\n"
SCIENCE = "Scientists found new planet number {i} around a distant star.\tscience\n"


def write_task(folder: Path, *, num_train: int = 24, num_dev: int = 8) -> Path:
    """A topic task with English train, dev and test rows and a Sinhala test."""
    for split, number in (("train", num_train), ("dev", num_dev), ("test", 6)):
        (folder / "eng_Latn").mkdir(parents=True, exist_ok=True)
        rows = [(SPORTS if i % 2 else SCIENCE).format(i=i) for i in range(number)]
        (folder / "eng_Latn" / f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows), "utf8")
    (folder / "sin_Sinh").mkdir(exist_ok=True)
    (folder / "sin_Sinh" / "test.tsv").write_text(
        "text\tlabel\nආර්ථිකය වර්ධනය වෙමින් පවතී.\tscience\nකණ්ඩායම තරගය ජයගත්තේය.\tsports\n", "utf8"
    )
    return folder


def small_values(data: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Plain values of a small recipe; sections are merged over the defaults."""
    values: dict[str, dict[str, Any]] = {
        "encoder": {"name": encoder_folder("xlm-r"), "max_length": 32},
        "lm": {"name": lm_folder("llama")},
        "fusion": {"mixer_options": {"feedforward_size": 16}, "warm_start": "none"},
        "task": {"name": "files", "path": str(data), "label_column": "label"},
        "training": {"epochs": 2, "batch_size": 4, "evaluations": 3, "learning_rate": 0.01},
        "evaluation": {"batch_size": 4},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    values["device"] = "cpu"
    return values


def small_recipe(data: Path, **sections: dict[str, Any]) -> Recipe:
    """The same as a recipe."""
    return recipe_from_dict(small_values(data, **sections))
