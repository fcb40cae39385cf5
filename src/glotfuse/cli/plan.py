"""`glotfuse plan`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glotfuse.cli.options import show
from glotfuse.errors import ConfigError

if TYPE_CHECKING:
    from glotfuse.runs.planning import Plan, PlannedStage

_UNITS = {"": 0, "K": 3, "M": 6, "G": 9, "T": 12}


def plan(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.", metavar="RECIPE")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.subkey=value, repeatable.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the recipe's by default.")] = None,
    memory: Annotated[str | None, typer.Option(help="Of a device that is not here, such as 24GB or 80GiB.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that train together.", min=1)] = 1,
    encoder_config: Annotated[Path | None, typer.Option(help="Folder with the encoder's config.json.")] = None,
    lm_config: Annotated[Path | None, typer.Option(help="Folder with the LM's config.json.")] = None,
    data: Annotated[bool, typer.Option(help="Read the data, from the hub too, to count and measure it.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Say what a recipe will need, before any weights are fetched.

    Parameters, memory by part, encoder states on disk, optimizer steps, what is cut, and whether it fits the device.
    """
    from glotfuse.recipes.loading import load_recipe
    from glotfuse.runs.planning import plan_run

    found = plan_run(
        load_recipe(recipe, set_),
        device=device,
        memory=None if memory is None else bytes_of(memory),
        processes=processes,
        encoder_config=encoder_config,
        lm_config=lm_config,
        read_data=data,
    )
    if json_:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    show(plan_table(found, recipe.name))
    for remark in found.remarks:
        typer.echo(f"- {remark}")
    typer.echo(found.sentence())


def bytes_of(size: str) -> int:
    """Bytes of a size such as 24GB (10^9) or 80GiB (2^30).

    Raises:
        ConfigError: It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", size, re.IGNORECASE)
    if match is None or (match[3] and not match[2]) or not float(match[1]):
        raise ConfigError(f"Expected --memory as a size such as 24GB or 80GiB; found {size!r}.")
    power = _UNITS[match[2].upper()]
    return int(float(match[1]) * (2 ** (power // 3 * 10) if match[3] else 10**power))


def plan_table(plan: Plan, title: str) -> Any:
    """The plan as a table of rich."""
    from rich.table import Table

    where = f"{plan.device.kind}{'' if plan.device.here else ' (not here)'}"
    several = f", {plan.processes} processes" if plan.processes > 1 else ""
    table = Table(title=f"{title} on {where}{several}", title_justify="left")
    table.add_column("what")
    table.add_column("how much", justify="right", no_wrap=True)
    table.add_column("note")
    _add_models(table, plan)
    for stage in plan.stages:
        _add_stage(table, plan, stage)
    peak = plan.peak
    which = f" ({peak.name})" if len(plan.stages) > 1 else ""
    table.add_row(f"memory{which}", "", "of one process", style="bold")
    for part in peak.memory.held:
        table.add_row(part.name, _gigabytes(part.num_bytes), part.note)
    largest = max(peak.memory.passes, key=lambda part: part.num_bytes)
    for part in peak.memory.passes:
        counted = "estimate; counts" if part is largest else "estimate; not at the same time"
        table.add_row(part.name, _gigabytes(part.num_bytes), "; ".join(filter(None, (part.note, counted))))
    table.add_row("needed at the peak", _gigabytes(plan.needed), "", style="bold")
    return table


def _add_models(table: Any, plan: Plan) -> None:
    recipe = plan.stages[-1].recipe
    table.add_row("parameters", "", "", style="bold")
    for role, model, section in (("encoder", plan.encoder, recipe.encoder), ("LM", plan.lm, recipe.lm)):
        if model is not None:
            dtype = model.dtype(section.dtype, plan.device.kind)
            note = f"{model.name}, {dtype}"
            if model.num_read > model.num_parameters:
                rest, size = model.num_read - model.num_parameters, model.loading_bytes(dtype)
                note += f"; loading takes {_gigabytes(size)} of CPU memory, for a decoder of {_count(rest)} is read too"
            table.add_row(role, _count(model.num_parameters), note)
    for stage in plan.stages:
        what = "fusion and adapter" if stage.learns_adapter else "fusion"
        at = f", {stage.name}" if len(plan.stages) > 1 else ""
        if stage.fusion is not None:
            table.add_row(f"trained{at}", _count(stage.num_trained), what)
    table.add_section()


def _add_stage(table: Any, plan: Plan, stage: PlannedStage) -> None:
    data, training = stage.data, stage.recipe.training
    bound = "" if data.exact else "at most "
    table.add_row(f"stage {stage.name}", "", "", style="bold")
    examples = "not known" if data.num_train is None else f"{bound}{data.num_train:,}"
    left_out = f"{data.num_left_out:,} more cannot be used" if data.num_left_out else ""
    table.add_row("training examples", examples, left_out)
    if plan.lm is not None:
        batch = f"{training.epochs:g} epochs, batches of {training.batch_size}"
        if plan.processes > 1:
            batch += f" ({training.batch_size // plan.processes} a process)"
        if training.accumulation > 1:
            batch += f", {training.accumulation} a step"
        steps = "not known" if stage.num_steps is None else f"{bound if stage.num_steps else ''}{stage.num_steps:,}"
        table.add_row("optimizer steps", steps, batch)
    if data.num_cut is not None:
        share = data.num_cut / max(1, data.num_train or 1)
        about = ", from a sample" if data.sampled else ""
        table.add_row(
            "texts cut", f"{data.num_cut:,}", f"{share:.1%}, to {stage.recipe.encoder.max_length} tokens{about}"
        )
    if data.label_tokens:
        words = ", ".join(f"{word} {number}" for word, number in data.label_tokens.items())
        table.add_row("label words", str(len(data.label_tokens)), f"LM tokens: {words}")
    if stage.fusion is not None and stage.fusion.reads_encoder:
        table.add_row("encoder states on disk", *_cache(stage))
    table.add_section()


def _cache(stage: PlannedStage) -> tuple[str, str]:
    size, limit = stage.cache_bytes, stage.cache_limit
    shown = "not known" if size is None else f"{'' if stage.data.num_tokens else 'at most '}{_gigabytes(size)}"
    if not limit:
        why = "code-switched views are read once" if stage.recipe.wants_views else "encoder.cache_gb is 0 here"
        return "none", why if size is None or stage.recipe.wants_views else f"{why}; they would take {shown}"
    if size is not None and size > limit:
        return "none", f"{shown} is more than encoder.cache_gb {limit / 1e9:g}: encoded anew every epoch"
    return shown, f"of at most {limit / 1e9:g} GB (encoder.cache_gb)"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _count(number: int) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:.{3 if name == 'B' else 1}f} {name}"
    return f"{number:,}"
