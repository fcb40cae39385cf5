"""What the sections of a recipe ask of one another, of the registries, and of installed packages.

Everything that can be known before minutes of loading is found here, all at once.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence

from glotfuse.backbones.lora import require_peft
from glotfuse.errors import ConfigError
from glotfuse.fusion import MIXERS, PROJECTORS
from glotfuse.recipes.config import Recipe
from glotfuse.run_folder import LOG

TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
"""Names that a recipe may give, and the packages of which one is needed."""


def check(recipe: Recipe) -> None:
    """Refuses a recipe whose parts do not fit together.

    Raises:
        ConfigError: With every fault, each naming its key.
    """
    faults = list(faults_of(recipe))
    if len(faults) > 1:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise ConfigError(f"{len(faults)} problems found in the recipe.\n{lines}")
    if faults:
        raise ConfigError(faults[0])


def faults_of(recipe: Recipe) -> Iterator[str]:
    """What is wrong with a recipe, one sentence or two for each fault."""
    fusion = recipe.fusion
    yield from _refusal(lambda: MIXERS.check(fusion.mixer, fusion.mixer_options))
    yield from _refusal(lambda: PROJECTORS.check(fusion.projector, fusion.projector_options))
    yield from _refusal(lambda: check_trackers(recipe.training.report_to))
    if recipe.adapter.kind != "none":
        yield from _refusal(require_peft)
    yield from _faults_of_fusion(recipe)
    yield from _faults_of_selection(recipe)
    yield from _faults_of_stages(recipe)
    yield from _faults_of_objectives(recipe)
    yield from _faults_of_probe(recipe)


def check_trackers(names: Sequence[str]) -> None:
    """Finds out before minutes of loading whether trackers are installed.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        packages = TRACKERS[name]
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(
                f"Expected the package {packages[0]} for training.report_to {name}; it is not installed. "
                f"Install it with `pip install {packages[0]}`, or take {name} out: {LOG} is written in any case."
            )


def _refusal(checks: Callable[[], object]) -> Iterator[str]:
    """The fault that a check raises, if any."""
    try:
        checks()
    except ConfigError as error:
        yield str(error)


def _faults_of_fusion(recipe: Recipe) -> Iterator[str]:
    if recipe.prompt.include_span and recipe.fusion.boundary == "none":
        yield (
            "Expected fusion.boundary zeros or normal, which ends the span; found none. It is for an LM that reads the "
            "text itself: set prompt.include_span to false too."
        )
    if recipe.lm.sharded and recipe.training.precision != "float32":
        yield (
            f"Expected training.precision float32 with lm.sharded; found {recipe.training.precision}. Set lm.dtype to "
            "it instead, or lm.sharded to false."
        )


def _faults_of_selection(recipe: Recipe) -> Iterator[str]:
    for where, training in (("general.", recipe.general.training), ("", recipe.training)):
        if training.select_by == "last" and training.average:
            yield (
                f"Expected {where}training.average 0 with {where}training.select_by last, for development data choose "
                f"between the average and the rest; found {training.average}."
            )


def _faults_of_stages(recipe: Recipe) -> Iterator[str]:
    general, adapted = recipe.general, recipe.adapter.kind != "none"
    staged = general.objective != "none" or general.from_run is not None
    if recipe.method == "embedding" and (staged or adapted or recipe.objective):
        yield "Expected no general, adapter or objective with the method 'embedding', which has no LM."
    if staged and not recipe.prompt.include_span:
        yield "Expected prompt.include_span with a general stage, which trains what makes the span; found false."
    if general.objective != "none" and general.from_run is not None:
        yield (
            f"Expected either general.objective or general.from_run; found {general.objective!r} and "
            f"{general.from_run!r}. Leave out the one that is not meant."
        )


def _faults_of_objectives(recipe: Recipe) -> Iterator[str]:
    general = recipe.general
    for where, prompt, training, objective in (
        ("general.", general.prompt, general.training, general.objective),
        ("", recipe.prompt, recipe.training, recipe.objective),
    ):
        if objective in (None, "none"):
            continue
        if prompt.include_text or not prompt.include_span:
            yield (
                f"Expected {where}prompt with the span alone for the objective {objective!r}; found include_span "
                f"{prompt.include_span}, include_text {prompt.include_text}: the LM would read the text itself."
            )
        if training.select_by == "accuracy":
            yield (
                f"Expected {where}training.select_by loss or last for the objective {objective!r}, without labels; "
                f"found {training.select_by!r}."
            )
    if recipe.objective == "distillation" and recipe.adapter.kind != "none":
        yield "Expected the LM as it is for the objective 'distillation', for it is its own teacher; found an adapter."


def _faults_of_probe(recipe: Recipe) -> Iterator[str]:
    if recipe.probe.kind == "none":
        return
    found = f"found {recipe.probe.kind!r}."
    if recipe.objective:
        yield f"Expected probe.kind none with the objective {recipe.objective!r}, which reads no labels; {found}"
    if recipe.prompt.include_text or not recipe.prompt.include_span:
        yield (
            "Expected probe.kind none where the LM reads the text itself: the probe is weighed against an LM that has "
            f"the span alone; {found}"
        )
