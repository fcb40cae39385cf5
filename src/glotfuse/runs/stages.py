"""Stages before the task's own training, each a run in a folder of its own inside the run's.

    general   the fusion learns from English text without labels (`general`), with the LM as it is
    adapter   the LM learns the task from the plain English text (`adapter.when: before`), without the fusion
    task      the run itself: the fusion starts from the general stage's weights, the LM has the adapter

A stage is an ordinary run of a recipe that is derived here, so it is resumed, recorded and saved like any other, its
folder is a checkpoint like any other, and a finished one is not trained again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from glotfuse.backbones import LM, add_adapter
from glotfuse.errors import CheckpointError
from glotfuse.model import checkpoint
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.locating import locate
from glotfuse.recipes.config import FusionConfig, GeneralConfig, Recipe
from glotfuse.recipes.loading import section_from_dict
from glotfuse.recipes.training_config import AdapterConfig, AugmentationConfig, ProbeConfig
from glotfuse.run_folder import CONFIG, STAGES, read_config, read_record

GENERAL, ADAPTER_STAGE = "general", "adapter"
"""Names of the folders: `RUN/stages/general`, `RUN/stages/adapter`."""

_IN_TRAINING_ONLY = ("warm_start", "warm_start_texts", "state_dropout", "token_dropout", "state_noise")
"""Settings of the fusion that do not change what its weights mean."""
_KEPT = (
    "num_train_examples",
    "num_dev_examples",
    "num_truncated",
    "num_steps",
    "best_step",
    "best_development_figure",
    "warm_start",
    "seconds",
    "log",
)
"""What the record of a run repeats of a stage's own."""


class Start(NamedTuple):
    """What the task's own training begins with."""

    fusion: Path | None
    """Checkpoint with the fusion weights to start from, None for fresh ones."""
    lm: LM
    """The LM, with its adapter where there is one."""
    records: dict[str, dict[str, Any]]
    """The stages' figures by name."""


def stage_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes of the stages that have to be trained before the task's, by name, in their order."""
    found = {GENERAL: _general_recipe(recipe), ADAPTER_STAGE: _adapter_recipe(recipe)}
    return {name: stage for name, stage in found.items() if stage is not None}


def start_from(recipe: Recipe, folder: Path, lm: LM) -> Start:
    """What the finished stages of a run, or the run that it names, give to the task's training.

    Args:
        recipe: The run's.
        folder: The run's.
        lm: Loaded, without an adapter.

    Raises:
        CheckpointError: The run that `general.from_run` names has nothing to give.
    """
    start, records = None, dict[str, dict[str, Any]]()
    if recipe.general.from_run:
        start = source_folder(recipe.general.from_run)
        records[GENERAL] = {"from": recipe.general.from_run, "weights_sha256": read_config(start)["weights_sha256"]}
    records |= {name: _summary(folder / STAGES / name) for name in stage_recipes(recipe)}
    if start is None and GENERAL in records:
        start = folder / STAGES / GENERAL
    if ADAPTER_STAGE in records:
        place = folder / STAGES / ADAPTER_STAGE
        lm = checkpoint.read_adapter(lm, place, read_config(place))
    elif recipe.adapter.kind == "lora":
        options = {key: getattr(recipe.adapter, key) for key in ("rank", "alpha", "dropout", "target_modules")}
        lm = add_adapter(lm, seed=recipe.training.seed, **options)
    return Start(start, lm, records)


def _general_recipe(recipe: Recipe) -> Recipe | None:
    """The general stage as a run, None where there is none to train."""
    general = recipe.general
    if general.objective == "none":
        return None
    changes: dict[str, Any] = {
        name: getattr(general, name)
        for name in ("state_dropout", "token_dropout", "state_noise")
        if getattr(general, name) is not None
    }
    return replace(
        recipe,
        objective=general.objective,
        fusion=replace(recipe.fusion, **changes),
        prompt=general.prompt,
        task=general.task or recipe.task,
        training=general.training,
        general=GeneralConfig(),
        adapter=AdapterConfig(),
        probe=ProbeConfig(),
    )


def _adapter_recipe(recipe: Recipe) -> Recipe | None:
    """The adapter's stage as a run in which the LM reads the text itself, None where there is none."""
    adapter = recipe.adapter
    if adapter.kind == "none" or adapter.when != "before":
        return None
    epochs = adapter.epochs if adapter.epochs is not None else recipe.training.epochs
    return replace(
        recipe,
        fusion=replace(recipe.fusion, boundary="none", warm_start="none"),
        prompt=replace(recipe.prompt, include_span=False),
        training=replace(recipe.training, epochs=epochs, learning_rate=adapter.learning_rate),
        general=GeneralConfig(),
        adapter=replace(adapter, when="together", epochs=None),
        augmentation=AugmentationConfig(),
        probe=ProbeConfig(),
    )


def keep_reading(model: FusedModel, folder: Path) -> None:
    """Keeps the fusion that a task's training started from, to follow other instructions by.

    Raises:
        CheckpointError: The checkpoint is damaged.
    """
    model.keep_reading(checkpoint.read_weights(folder, read_config(folder)["weights_sha256"]))


def source_folder(name: str) -> Path:
    """Where a named run's weights for another run are: in its general stage, or in itself, or in the package.

    Raises:
        CheckpointError: Neither is finished, or the package has none of this name.
    """
    folder = locate(name)
    general = folder / STAGES / GENERAL
    if (general / CONFIG).exists():
        return general
    if not (folder / CONFIG).exists():
        raise CheckpointError(
            f"Expected a finished run or checkpoint in general.from_run; found none in {folder}. Train it first."
        )
    return folder


def hand_over(model: FusedModel, folder: Path) -> str:
    """Puts the fusion weights of a checkpoint into a model with the same backbones and fusion; returns their SHA-256.

    Raises:
        CheckpointError: The backbones or the fusion's settings differ, or the checkpoint is damaged.
    """
    config = read_config(folder)
    found = {role: config[role]["sha256"] for role in ("encoder", "lm")}
    expected = {"encoder": model.encoder.identity.sha256, "lm": model.lm.identity.sha256}
    different = [role for role in expected if found[role] != expected[role]]
    fusion = section_from_dict(FusionConfig, config["fusion"], f"{folder / CONFIG}: fusion")
    own = model.settings["fusion"]
    different += [
        f"fusion.{key} ({value!r}, here {own[key]!r})"
        for key, value in vars(fusion).items()
        if key not in _IN_TRAINING_ONLY and value != own[key]
    ]
    if different:
        raise CheckpointError(
            f"Expected fusion weights that were trained with the same backbones and fusion settings; those in {folder} "
            f"differ in {', '.join(different)}. Choose another run, or give the recipe the same settings."
        )
    checkpoint.load_fusion(model, checkpoint.read_weights(folder, config["weights_sha256"]), folder)
    return str(config["weights_sha256"])


def _summary(folder: Path) -> dict[str, Any]:
    """What the record of a run says of a finished stage: its figures and log, without data and provenance."""
    record = read_record(folder)
    sha256 = checkpoint.weights_identity(read_config(folder))
    return {"folder": f"{STAGES}/{folder.name}", **{key: record.get(key) for key in _KEPT}, "weights_sha256": sha256}
