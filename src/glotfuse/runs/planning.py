"""What a run will need, before its weights are fetched: parameters, memory, disk, steps, cuts, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from glotfuse.errors import ConfigError, GlotfuseError
from glotfuse.fusion import BoundaryOnly, Fusion
from glotfuse.model.assembly import build_fusion
from glotfuse.model.state_cache import bytes_on_disk
from glotfuse.recipes.checks import faults_of
from glotfuse.recipes.config import Recipe
from glotfuse.runs.kept_states import budget
from glotfuse.runs.planned_data import PlannedData, plan_data
from glotfuse.runs.planned_device import Device, find_device
from glotfuse.runs.planned_memory import Memory, estimate
from glotfuse.runs.planned_models import PlannedModel, plan_encoder, plan_lm
from glotfuse.runs.stages import source_folder, stage_recipes

_CLOSE = 0.9
"""Share of the device from which on there is little room for an estimate's error."""
_WORTH = 0.01
"""Share of the memory that a change has to save to be named."""


@dataclass(frozen=True)
class PlannedStage:
    """One training."""

    name: str
    recipe: Recipe
    data: PlannedData
    fusion: Fusion | BoundaryOnly | None
    num_steps: int | None
    """Optimizer steps; None where the number of examples is not known."""
    memory: Memory
    """Of one process."""
    num_trained: int
    num_adapter: int
    """Parameters of the LM's adapter, trained or not."""
    learns_adapter: bool
    cache_bytes: int | None
    """What its encoder states take on the disk, None where that is not known."""
    cache_limit: float
    """Most bytes that may be kept; 0 keeps none."""


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    device: Device
    processes: int
    encoder: PlannedModel
    lm: PlannedModel | None
    stages: list[PlannedStage]
    """In their order; the task is the last."""
    needed: int
    """Bytes on the device at the peak, of all processes that share it."""
    advice: list[tuple[str, int]]
    """Settings, one added to the other, and what is then needed; empty where the run fits."""
    remarks: list[str] = field(default_factory=list)
    """What was assumed, not read, or would be refused."""

    @property
    def fits(self) -> bool:
        """Whether the device has room."""
        return self.needed <= self.device.num_bytes

    @property
    def peak(self) -> PlannedStage:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: stage.memory.total)

    def sentence(self) -> str:
        """Whether it fits, in one sentence or two."""
        room = f"{self.needed / 1e9:.1f} of {self.device.num_bytes / 1e9:.1f} GB"
        if self.fits:
            close = self.needed > _CLOSE * self.device.num_bytes
            return f"Fits: {room}{', but it is close, and the passes are an estimate' if close else ''}."
        if not self.advice:
            return f"Does not fit: {room}. Choose a smaller encoder or LM, or a larger device."
        settings = " ".join(f"--set {setting}" for setting, _ in self.advice)
        then = self.advice[-1][1]
        rest = "" if then <= self.device.num_bytes else ", still too much: choose smaller models or a larger device"
        return f"Does not fit: {room}. Try {settings}: {then / 1e9:.1f} GB{rest}."

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        models = {"encoder": self.encoder, "lm": self.lm}
        return {
            "device": asdict(self.device),
            "processes": self.processes,
            "models": {
                role: {"name": model.name, "num_parameters": model.num_parameters, "num_read": model.num_read}
                for role, model in models.items()
                if model is not None
            },
            "stages": [_stage_values(stage) for stage in self.stages],
            "needed": self.needed,
            "fits": self.fits,
            "advice": [{"set": setting, "needed": needed} for setting, needed in self.advice],
            "remarks": self.remarks,
            "sentence": self.sentence(),
        }


def plan_run(
    recipe: Recipe,
    *,
    device: str | None = None,
    memory: int | None = None,
    processes: int = 1,
    encoder_config: Path | None = None,
    lm_config: Path | None = None,
    read_data: bool = True,
) -> Plan:
    """Plans a run without its weights.

    Args:
        recipe: The run.
        device: What to plan for; None takes the recipe's.
        memory: Bytes of a device that is not here; None asks this machine.
        processes: How many train together.
        encoder_config: Folder with the encoder's `config.json`, in place of the hub's.
        lm_config: The same for the LM.
        read_data: Whether rows are read; those of a task on the hub may be fetched for it.

    Raises:
        BackboneError: A configuration cannot be read.
        ConfigError: The device is not here and its memory not given, or processes cannot share a batch evenly.

    Example:
        >>> plan_run(load_recipe("recipes/sib200.yaml"), read_data=False).sentence()  # doctest: +SKIP
    """
    if recipe.training.batch_size % processes:
        raise ConfigError(
            f"Expected a training.batch_size that {processes} processes can share evenly; found "
            f"{recipe.training.batch_size}."
        )
    target = find_device(device or recipe.device, memory, chosen=device is not None)
    encoder = plan_encoder(recipe.encoder, encoder_config)
    lm = None if recipe.method == "embedding" else plan_lm(recipe.lm, lm_config)
    remarks = [f"Training would refuse the recipe: {fault}" for fault in faults_of(recipe)]
    remarks += [*encoder.remarks, *(lm.remarks if lm else ())]
    if recipe.general.from_run:
        try:
            source_folder(recipe.general.from_run)
        except GlotfuseError as error:
            remarks.append(f"Training would stop: {error}")
    if recipe.encoder.device_map or recipe.lm.device_map:
        remarks.append("device_map spreads the weights over devices; here all are counted on one.")
    stages = [
        _plan_stage(name, stage, encoder, lm, target, processes, read_data)
        for name, stage in {**stage_recipes(recipe), "task": recipe}.items()
    ]
    for stage in stages:
        remarks += [f"{stage.name}: {remark}" if len(stages) > 1 else remark for remark in stage.data.remarks]
    together = processes if target.kind == "cpu" else 1
    loading = encoder.loading_bytes(encoder.dtype(recipe.encoder.dtype, target.kind)) if target.kind == "cpu" else 0
    needed = together * max(loading, *(stage.memory.total for stage in stages))
    found = Plan(target, processes, encoder, lm, stages, needed, [], list(dict.fromkeys(remarks)))
    return found if found.fits else replace(found, advice=_advice(found, together))


def steps_of(num_examples: int, batch_size: int, accumulation: int, epochs: float) -> int:
    """Optimizer steps, as the Trainer counts them: an epoch's last group of batches may be smaller."""
    if not num_examples or not epochs:
        return 0
    return math.ceil(max(1, math.ceil(math.ceil(num_examples / batch_size) / accumulation)) * epochs)


def _plan_stage(
    name: str,
    recipe: Recipe,
    encoder: PlannedModel,
    lm: PlannedModel | None,
    device: Device,
    processes: int,
    read_data: bool,
) -> PlannedStage:
    data = plan_data(recipe, encoder, lm, read=read_data)
    fusion: Fusion | BoundaryOnly | None = None
    num_adapter, learns = 0, False
    if lm is not None:
        with torch.device("meta"):
            fusion = build_fusion(
                recipe.fusion, recipe.prompt, encoder.num_layers, encoder.hidden_size, lm.embedding_size, 1.0
            )
        if recipe.adapter.kind != "none":
            layers = lm.linear_layers(recipe.adapter.target_modules)
            num_adapter = sum(recipe.adapter.rank * (a + b) for a, b in layers)
            learns = recipe.adapter.when == "together"
    trained = 0 if fusion is None else sum(x.numel() for x in fusion.parameters() if x.requires_grad)
    trained += num_adapter if learns else 0
    config = recipe.training
    steps = (
        None
        if data.num_train is None
        else steps_of(data.num_train, config.batch_size, config.accumulation, config.epochs if trained else 0)
    )
    found = PlannedStage(
        name=name,
        recipe=recipe,
        data=data,
        fusion=fusion,
        num_steps=steps,
        memory=Memory((), ()),
        num_trained=trained,
        num_adapter=num_adapter,
        learns_adapter=learns,
        cache_bytes=_cache_bytes(recipe, data, encoder, fusion),
        cache_limit=1e9 * budget(recipe, device.kind) if fusion is not None and fusion.reads_encoder else 0.0,
    )
    return replace(found, memory=_memory(found, recipe, encoder, lm, device, processes))


def _memory(
    stage: PlannedStage, recipe: Recipe, encoder: PlannedModel, lm: PlannedModel | None, device: Device, processes: int
) -> Memory:
    return estimate(
        recipe,
        encoder,
        lm,
        stage.fusion,
        stage.data.lengths,
        device=device.kind,
        batch_rows=recipe.training.batch_size // processes,
        processes=processes,
        learning_adapter=stage.learns_adapter,
        num_adapter=stage.num_adapter,
    )


def _cache_bytes(
    recipe: Recipe, data: PlannedData, encoder: PlannedModel, fusion: Fusion | BoundaryOnly | None
) -> int | None:
    """What the states of training and development texts take, at most where they were not counted."""
    tokens = data.num_tokens
    if tokens is None and data.num_train is not None:
        tokens = (data.num_train + data.num_dev) * recipe.encoder.max_length
    if tokens is None or not isinstance(fusion, Fusion):
        return None
    return bytes_on_disk(tokens, len(fusion.mixer.layers), encoder.hidden_size)


Change = tuple[str, Callable[[Recipe], Recipe]]


def _changes(plan: Plan) -> list[Change]:
    """Settings that spare memory, where the recipe does not have them yet."""
    recipe, device, peak = plan.stages[-1].recipe, plan.device.kind, plan.peak
    prefix = "general." if peak.name == "general" else ""
    found: list[Change] = []

    def section(name: str, **values: Any) -> None:
        def change(recipe: Recipe) -> Recipe:
            return replace(recipe, **{name: replace(getattr(recipe, name), **values)})

        key, value = next(iter(values.items()))
        shown = str(value).lower() if isinstance(value, bool) else value
        found.append((f"{prefix if name == 'training' else ''}{name}.{key}={shown}", change))

    if plan.encoder.dtype(recipe.encoder.dtype, device) == "float32":
        section("encoder", dtype="bfloat16")
    if plan.lm is not None and recipe.lm.quantization == "none":
        if plan.lm.dtype(recipe.lm.dtype, device) == "float32":
            section("lm", dtype="bfloat16")
        if device == "cuda" and recipe.lm.gguf_file is None:
            section("lm", quantization="bitsandbytes-4bit")
    if plan.lm is not None and not peak.recipe.training.gradient_checkpointing:
        section("training", gradient_checkpointing=True)
    one = peak.data.lengths.encoder + peak.data.lengths.text
    if peak.recipe.training.max_tokens is None or peak.recipe.training.max_tokens > one:
        section("training", max_tokens=one)
    if recipe.evaluation.batch_size > 8:
        section("evaluation", batch_size=8)
    return found


def _advice(plan: Plan, together: int) -> list[tuple[str, int]]:
    """The changes that spare most, one after the other, until the run fits or nothing is worth a change."""
    recipes = {stage.name: stage.recipe for stage in plan.stages}
    changes, found, needed = _changes(plan), list[tuple[str, int]](), plan.needed

    def total(changed: dict[str, Recipe]) -> int:
        return together * max(
            _memory(stage, changed[stage.name], plan.encoder, plan.lm, plan.device, plan.processes).total
            for stage in plan.stages
        )

    while changes and needed > plan.device.num_bytes:
        tried = [
            (total(after), setting, change, after)
            for setting, change in changes
            for after in [{name: change(recipe) for name, recipe in recipes.items()}]
        ]
        least, setting, change, after = min(tried, key=lambda each: each[0])
        if least > needed * (1 - _WORTH):
            break
        needed, recipes = least, after
        found.append((setting, needed))
        changes = [each for each in changes if each[1] is not change]
    return found


def _stage_values(stage: PlannedStage) -> dict[str, Any]:
    data = asdict(stage.data)
    parts: Sequence[Any] = stage.memory.held
    return {
        "name": stage.name,
        **{key: data[key] for key in data if key != "remarks"},
        "num_steps": stage.num_steps,
        "num_trained": stage.num_trained,
        "batch_size": stage.recipe.training.batch_size,
        "accumulation": stage.recipe.training.accumulation,
        "epochs": stage.recipe.training.epochs,
        "memory": {part.name: part.num_bytes for part in (*parts, *stage.memory.passes)},
        "memory_at_peak": stage.memory.total,
        "cache_bytes": stage.cache_bytes,
        "cache_limit": int(stage.cache_limit),
    }
