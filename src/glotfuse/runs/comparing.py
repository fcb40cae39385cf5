"""`glotfuse compare`: trains and measures what is missing, one run at a time, then compares.

A recipe's runs stand in `OUT/<recipe>/seed-<n>`. What is finished is kept; what was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glotfuse import distributed
from glotfuse.backbones import LM, Encoder
from glotfuse.errors import ConfigError
from glotfuse.evaluation.comparison import Contestant, compare
from glotfuse.evaluation.comparison_data import Comparison
from glotfuse.evaluation.comparison_table import to_markdown
from glotfuse.files import to_json, write_files
from glotfuse.progress import console
from glotfuse.provenance import command_line, hardware, versions
from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import load_recipe
from glotfuse.run_folder import COMPARISON, COMPARISON_PAGE, RECIPE, advice, is_trained, read_record, runs_in
from glotfuse.runs.backbones import load_backbones
from glotfuse.runs.folder import finished, read_recipe
from glotfuse.runs.measuring import measure_run, with_evaluation
from glotfuse.runs.train import train_run


@dataclass
class _Loaded:
    """Backbones that are kept from run to run while recipes ask for the same."""

    key: object = None
    backbones: tuple[Encoder, LM] | None = None

    def of(self, recipe: Recipe) -> tuple[Encoder, LM]:
        encoder = replace(recipe.encoder, max_length=1, cache_gb=None)  # what does not change the loaded model
        key = (encoder, recipe.lm, recipe.device)
        if self.backbones is None or self.key != key:
            self.backbones, self.key = None, None  # first free what is there
            self.backbones, self.key = load_backbones(recipe), key
        return self.backbones


def compare_all(
    sources: Sequence[Path],
    out: Path,
    *,
    seeds: int = 1,
    overrides: Sequence[str] = (),
    split: str = "test",
    languages: Sequence[str] | None = None,
    max_examples: int | None = None,
) -> Comparison:
    """Compares recipes and finished runs; writes `comparison.json` and `comparison.md`.

    Args:
        sources: Recipe files; folders of finished, measured runs; or folders with `seed-<n>` folders of such.
        out: Where recipes' runs and the result are kept.
        seeds: Runs of each recipe that trains something.
        overrides: `key.subkey=value`, for all recipes.
        split: What is measured.
        languages: Which, None for all.
        max_examples: At most so many rows per language.

    Raises:
        ConfigError: Two sources have the same name.
        TrainingInterruptedError: The user pressed Ctrl-C; the same command goes on.
    """
    sources = [run for source in sources for run in _inside(source)]
    names = _names(sources)
    loaded = _Loaded()
    contestants = []
    for name, source in zip(names, sources, strict=True):
        if source.is_dir():
            contestants.append(_existing(name, source))
            continue
        recipe = load_recipe(source, list(overrides))
        recipe = with_evaluation(recipe, split=split, languages=languages, max_examples=max_examples)
        contestants.append(_run_all(name, recipe, out / name, seeds, loaded))
    found = compare(contestants, split)
    own = {"command": command_line(), "hardware": hardware(), "versions": versions()}
    found = replace(found, metadata={**found.metadata, **own})
    files = {COMPARISON: to_json(found.to_dict()), COMPARISON_PAGE: to_markdown(found).encode("utf8")}
    distributed.once(lambda: write_files(out, files))
    return found


def _names(sources: Iterable[Path]) -> list[str]:
    names = [source.stem if source.is_file() else source.name for source in sources]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ConfigError(
            f"Expected recipes and runs with different names; found {', '.join(double)} twice. Rename one."
        )
    return names


def _inside(source: Path) -> list[Path]:
    """The source; in place of a quickstart's or comparison's folder the recipes' folders inside."""
    if not source.is_dir() or is_trained(source) or any(source.glob("seed-*")):
        return [source]
    runs = [run.parent if run.name.startswith("seed-") else run for run in runs_in(source)]
    return list(dict.fromkeys(runs)) or [source]


def _existing(name: str, folder: Path) -> Contestant:
    runs = sorted(folder.glob("seed-*"), key=lambda run: int(run.name.removeprefix("seed-"))) or [folder]
    for run in runs:
        if not is_trained(run):
            raise ConfigError(
                f"Expected a recipe file or the folder of a finished run; found neither in {run}. {advice(run)}"
            )
    known = (runs[0] / RECIPE).exists()
    random = _is_random(read_recipe(runs[0])) if known else True
    return Contestant(name, runs, [_seed(run) for run in runs], [_seconds(run) for run in runs], random=random)


def _run_all(name: str, recipe: Recipe, folder: Path, seeds: int, loaded: _Loaded) -> Contestant:
    random = _is_random(recipe)
    learns = random or recipe.method == "embedding"
    runs = []
    for seed in range(seeds if random else 1):
        run = folder / f"seed-{seed}"
        one = replace(recipe, training=replace(recipe.training, seed=seed))
        console.print(f"\n{name}, seed {seed}", style="bold", highlight=False)
        backbones = None if recipe.method == "embedding" else loaded.of(one)
        if not finished(run, one):
            train_run(one, run, backbones=backbones)
        measure_run(run, one, backbones)
        runs.append(run)
    return Contestant(name, runs, list(range(len(runs))), [_seconds(run) for run in runs], learns, random)


def _is_random(recipe: Recipe) -> bool:
    """Whether another seed gives other weights: something is trained, and not by a solver with one solution."""
    has_weights = recipe.prompt.include_span or recipe.fusion.boundary != "none"
    return recipe.method == "fusion" and recipe.training.epochs > 0 and has_weights


def _seconds(run: Path) -> float | None:
    seconds = read_record(run).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _seed(run: Path) -> int:
    recipe = read_record(run).get("recipe")
    try:
        return int(recipe["training"]["seed"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return 0
