"""Stages before the task's own training, each a run in a folder of its own inside the run's.

    general   the fusion learns from English text without labels (`general`), with the LM as it is
    adapter   the LM learns the task from the plain English text (`adapter.when: before`), without the fusion
    task      the run itself: the fusion starts from the general stage's weights, the LM has the adapter

A stage is an ordinary run of a recipe that is derived here, so it is resumed, recorded and saved like any other, its
folder is a checkpoint like any other, and a finished one is not trained again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from glotfuse import checkpoint
from glotfuse.backbones import LM, Encoder, add_adapter
from glotfuse.backbones.adapter import require_peft
from glotfuse.config import AdapterConfig, AugmentationConfig, FusionConfig, GeneralConfig, ProbeConfig, Recipe
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.model import FusedLM
from glotfuse.progress import console
from glotfuse.recipes import section_from_dict

STAGES, GENERAL, ADAPTER = "stages", "general", "adapter"
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


class Train(Protocol):
    """`glotfuse.runs.train_run`."""

    def __call__(self, recipe: Recipe, folder: Path, *, backbones: tuple[Encoder, LM]) -> Any:
        """Trains a recipe into a folder."""


class Earlier(NamedTuple):
    """What the task's own training begins with."""

    start: Path | None
    """Checkpoint with the fusion weights to start from, None for fresh ones."""
    lm: LM
    """The LM, with its adapter where there is one."""
    records: dict[str, dict[str, Any]]
    """The stages' figures by name."""


def earlier(recipe: Recipe, folder: Path, encoder: Encoder, lm: LM, train: Train) -> Earlier:
    """Trains the stages before the task's, where they are not finished.

    Args:
        recipe: The run's.
        folder: The run's.
        encoder: Loaded.
        lm: Loaded; it stays as it is, and an adapter that it may have is not used.
        train: Trains one stage.
    """
    lm, records = lm.plain, dict[str, dict[str, Any]]()
    start = source_folder(recipe.general.from_run) if recipe.general.from_run else None
    if start is not None:
        sha256 = checkpoint.read_config(start)["weights_sha256"]
        records[GENERAL] = {"from": recipe.general.from_run, "weights_sha256": sha256}
    for name, stage in ((GENERAL, general_recipe(recipe)), (ADAPTER, adapter_recipe(recipe))):
        place = folder / STAGES / name
        if stage is None:
            continue
        if not (place / checkpoint.CONFIG).exists():
            console.print(f"Stage {name}", style="bold")
            train(stage, place, backbones=(encoder, lm))
        records[name] = _summary(place)
    if start is None and GENERAL in records:
        start = folder / STAGES / GENERAL
    adapter = recipe.adapter
    if ADAPTER in records:
        place = folder / STAGES / ADAPTER
        lm = checkpoint.read_adapter(lm, place, checkpoint.read_config(place))
    elif adapter.kind == "lora":
        options = {key: getattr(adapter, key) for key in ("rank", "alpha", "dropout", "target_modules")}
        lm = add_adapter(lm, seed=recipe.training.seed, **options)
    return Earlier(start, lm, records)


def check(recipe: Recipe) -> None:
    """Refuses stages that do not fit the rest of the recipe, before minutes of loading.

    Raises:
        ConfigError: Naming the key.
    """
    general, adapted = recipe.general, recipe.adapter.kind != "none"
    if adapted:
        require_peft()
    staged = general.objective != "none" or general.from_run is not None
    if recipe.method == "embedding" and (staged or adapted or recipe.objective):
        raise ConfigError("Expected no general, adapter or objective with the method 'embedding', which has no LM.")
    if staged and not recipe.prompt.include_span:
        raise ConfigError(
            "Expected prompt.include_span with a general stage, which trains what makes the span; found false."
        )
    if recipe.probe.kind != "none":
        _check_probe(recipe)
    if general.objective != "none" and general.from_run is not None:
        raise ConfigError(
            f"Expected either general.objective or general.from_run; found {general.objective!r} and "
            f"{general.from_run!r}. Leave out the one that is not meant."
        )
    learnt = [("general.", general.prompt, general.objective), ("", recipe.prompt, recipe.objective)]
    for where, prompt, objective in learnt:
        if objective not in (None, "none") and (prompt.include_text or not prompt.include_span):
            raise ConfigError(
                f"Expected {where}prompt with the span alone for the objective {objective!r}; found include_span "
                f"{prompt.include_span}, include_text {prompt.include_text}: the LM would read the text itself."
            )
    for where, training, objective in (
        ("general.", general.training, general.objective),
        ("", recipe.training, recipe.objective),
    ):
        if objective not in (None, "none") and training.select_by != "loss":
            raise ConfigError(
                f"Expected {where}training.select_by loss for the objective {objective!r}, which has no labels; "
                f"found {training.select_by!r}."
            )
    if recipe.objective == "distillation" and adapted:
        raise ConfigError(
            "Expected the LM as it is for the objective 'distillation', for it is its own teacher; found an adapter."
        )


def _check_probe(recipe: Recipe) -> None:
    found = f"found {recipe.probe.kind!r}."
    if recipe.objective:
        raise ConfigError(
            f"Expected probe.kind none with the objective {recipe.objective!r}, which reads no labels; {found}"
        )
    if recipe.prompt.include_text or not recipe.prompt.include_span:
        raise ConfigError(
            "Expected probe.kind none where the LM reads the text itself: the probe is weighed against an LM that has "
            f"the span alone; {found}"
        )


def general_recipe(recipe: Recipe) -> Recipe | None:
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


def adapter_recipe(recipe: Recipe) -> Recipe | None:
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


def source_folder(name: str) -> Path:
    """Where a named run's weights for another run are: in its general stage, or in itself.

    Raises:
        CheckpointError: Neither is finished.
    """
    folder = Path(name)
    general = folder / STAGES / GENERAL
    if (general / checkpoint.CONFIG).exists():
        return general
    if not (folder / checkpoint.CONFIG).exists():
        raise CheckpointError(
            f"Expected a finished run or checkpoint in general.from_run; found none in {folder}. Train it first."
        )
    return folder


def hand_over(model: FusedLM, folder: Path) -> str:
    """Puts the fusion weights of a checkpoint into a model with the same backbones and fusion; returns their SHA-256.

    Raises:
        CheckpointError: The backbones or the fusion's settings differ, or the checkpoint is damaged.
    """
    config = checkpoint.read_config(folder)
    found = {role: config[role]["sha256"] for role in ("encoder", "lm")}
    expected = {"encoder": model.encoder.identity.sha256, "lm": model.lm.identity.sha256}
    different = [role for role in expected if found[role] != expected[role]]
    fusion = section_from_dict(FusionConfig, config["fusion"], f"{folder / checkpoint.CONFIG}: fusion")
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
    record = json.loads((folder / checkpoint.RECORD).read_text("utf8"))
    sha256 = checkpoint.weights_identity(checkpoint.read_config(folder))
    return {"folder": f"{STAGES}/{folder.name}", **{key: record.get(key) for key in _KEPT}, "weights_sha256": sha256}
