"""The model card of a run: metadata that the hub reads, and a text, both from the run's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from glotfuse.backbones.bundled.catalogue import BUNDLED
from glotfuse.errors import CheckpointError
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.files import write_file
from glotfuse.hub.card_text import data_text, languages_text, limits, shown_path, without_paths
from glotfuse.languages.names import TWO_LETTER_CODES, name_of
from glotfuse.provenance import versions
from glotfuse.run_folder import CARD, EMBEDDING_CONFIG, read_config, read_record, report_file

MARKER = "Written by glotfuse from the run's files. Remove this line, and your changes are kept."
_ORIGINALS = {
    "bundled:e5-small": "intfloat/multilingual-e5-small",
    "bundled:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
"""Bundled name -> hub id of the model that it was made from."""
_NO_LICENCE = "The author has not named a licence for the weights here."
_CHECK = "not known here: look at the model's own card"


@dataclass(frozen=True)
class BackboneEntry:
    """What the card says of a backbone."""

    role: str
    shown: str
    hub_id: str | None
    architecture: str
    revision: str | None
    sha256: str
    licence: str
    note: str


def card_of_run(folder: Path, repo_id: str | None = None, licence: str | None = None) -> ModelCard:
    """Makes the card of a run folder.

    Args:
        folder: The run, measured or not.
        repo_id: Where it is going to be on the hub.
        licence: Identifier of the licence that its author gives it, such as `apache-2.0`.

    Raises:
        CheckpointError: The folder holds no checkpoint.
        DataError: Its record or its report is damaged.
    """
    config = read_config(folder)
    reports = [report_file(folder, split) for split in ("test", "dev")]
    report = next((EvaluationReport.load(file) for file in reports if file.exists()), None)
    return make_card(config, read_record(folder), report, repo_id or folder.resolve().name, licence)


def make_card(
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    report: EvaluationReport | None,
    where: str,
    licence: str | None = None,
) -> ModelCard:
    """Makes a card from a checkpoint's config, its training record (may be empty) and its report.

    Args:
        config: Of the checkpoint.
        record: What `training.json` holds.
        report: The result, if it was measured.
        where: Hub id or folder that the example loads.
        licence: Of the fusion weights.
    """
    entries = {role: backbone_entry(role, config[role]) for role in ("encoder", "lm")}
    task, name = str(config.get("task") or "files"), where.rsplit("/", 1)[-1]
    codes = [result.language for result in report.results] if report else []
    dataset = _hub_dataset(task)
    data = ModelCardData(
        library_name="glotfuse",
        license=licence,
        language=sorted({iso_code(code) for code in codes}) or None,
        base_model=[entry.hub_id for entry in entries.values() if entry.hub_id] or None,
        base_model_relation="adapter" if any(entry.hub_id for entry in entries.values()) else None,
        pipeline_tag="text-classification" if config["labels"] else "text-generation",
        tags=["glotfuse", "multilingual", "cross-lingual-transfer", config["fusion"]["mixer"]],
        datasets=[dataset] if dataset else None,
        metrics=["accuracy", "f1"] if report else None,
        model_name=name,
        eval_results=_results(report, task, dataset) if report and report.results else None,
    )
    unknown = [entry.shown for entry in entries.values() if entry.licence == _CHECK]
    fusion = config["fusion"]
    text = resources.files("glotfuse.hub").joinpath("card_template.md.jinja").read_text("utf8")
    card: ModelCard = ModelCard.from_template(
        data,
        template_str=text,
        marker=MARKER,
        title=name,
        where=where,
        encoder=entries["encoder"],
        lm=entries["lm"],
        fusion=f"mixer {fusion['mixer']}, projector {fusion['projector']}",
        labels=config["labels"],
        local=[entry.shown for entry in entries.values() if entry.hub_id is None],
        own_licence=f"The weights here: {licence}." if licence else _NO_LICENCE,
        reminder=f". Check those of {' and '.join(unknown)}, which this card does not know." if unknown else ".",
        languages_text=languages_text(config["encoder"]["name"], codes),
        reads_span=config["prompt"].get("include_span", True),
        has_probe="probe_sha256" in config,
        trained_on=next((name_of(part["language"]) for part in record.get("data", [])), "English"),
        report=report,
        report_rows=_rows(report),
        table=report.table().to_markdown() if report else "",
        limits=limits(config, record, report, [entry.note for entry in entries.values() if entry.note]),
        data_text=data_text(record, dataset),
        recipe=yaml.safe_dump(without_paths(record.get("recipe", {})), sort_keys=False, allow_unicode=True),
        provenance=_provenance(config, record),
    )
    return card


def write_card(folder: Path, licence: str | None = None) -> Path | None:
    """Writes the card into a run's folder; None where a card stands that someone wrote or changed to keep."""
    path = folder / CARD
    if path.exists() and MARKER not in path.read_text("utf8"):
        return None
    write_file(path, str(card_of_run(folder, licence=licence)))
    return path


def read_card(folder: Path) -> str | None:
    """A card in the folder that someone wrote or changed to keep; None where there is none."""
    path = folder / CARD
    text = path.read_text("utf8") if path.exists() else MARKER
    return None if MARKER in text else text


def backbone_entry(role: str, identity: Mapping[str, Any]) -> BackboneEntry:
    """What the card says of a backbone, from what a checkpoint recorded of it."""
    name = str(identity["name"])
    bundled = BUNDLED.get(name.removeprefix("bundled:")) if name.startswith("bundled:") else None
    local = bundled is None and (name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).exists())
    notes = [bundled.note] if bundled else []
    if identity.get("gguf_file") or name.endswith(".gguf"):
        notes.append(" ".join(["weights from a GGUF file", identity.get("gguf_file") or ""]).rstrip())
    if identity.get("quantization", "none") != "none":
        notes.append(f"quantised in training: {identity['quantization']}")
    return BackboneEntry(
        role="encoder" if role == "encoder" else "LLM",
        shown=shown_path(name) if local else f"`{name}`",
        hub_id=None if local else _ORIGINALS.get(name, name),
        architecture=str(identity["architecture"]),
        revision=identity["revision"] or (f"{bundled.package} {bundled.version}" if bundled else None),
        sha256=str(identity["sha256"]),
        licence=bundled.licence if bundled else _CHECK,
        note="; ".join(notes),
    )


def iso_code(code: str) -> str:
    """ISO 639-1 code of a language, or its ISO 639-3 code where it has no shorter one."""
    base = code.split("_")[0]
    short = TWO_LETTER_CODES.get(base, base)
    return short if len(short) in (2, 3) else base


def _results(report: EvaluationReport, task: str, dataset: str | None) -> list[EvalResult]:
    found = []
    for result in report.results:
        for metric, name, interval in (
            ("accuracy", "Accuracy", result.accuracy),
            ("f1", "Macro-F1", result.macro_f1),
        ):
            found.append(
                EvalResult(
                    task_type="text-classification",
                    dataset_type=dataset or task,
                    dataset_name=f"{task}, {name_of(result.language)}",
                    dataset_config=result.language,
                    dataset_split=report.split,
                    metric_type=metric,
                    metric_name=f"{name} (95% CI {interval.low:.3f} to {interval.high:.3f}, n = {result.num_examples})",
                    metric_value=round(interval.value, 4),
                )
            )
    return found


def _hub_dataset(task: str) -> str | None:
    """Hub id of a named task's data set, None for own files and data in the package."""
    from glotfuse.tasks import get_task
    from glotfuse.tasks.hub import HubSource
    from glotfuse.tasks.named import NAMED_TASKS

    source = get_task(task).source if task in NAMED_TASKS else None
    if not isinstance(source, HubSource):
        return None
    return source.datasets[0].repo


def _rows(report: EvaluationReport | None) -> str:
    sizes = sorted({result.num_examples for result in report.results}) if report else []
    if not sizes:
        return ""
    return f", {sizes[0]} rows per language" if len(sizes) == 1 else f", {sizes[0]} to {sizes[-1]} rows per language"


def _provenance(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    found = {"SHA-256 of `fusion.safetensors`": f"`{config['weights_sha256']}`"}
    if record.get("finished"):
        found["Trained"] = f"until {record['finished']}, {record['seconds']:.0f} s, {record.get('num_steps', 0)} steps"
    if record.get("hardware"):
        found["Hardware"] = ", ".join(f"{key} {value}" for key, value in record["hardware"].items())
    found["Versions"] = ", ".join(f"{key} {value}" for key, value in (record.get("versions") or versions()).items())
    return found


def check_folder(folder: Path) -> None:
    """Refuses what has no card.

    Raises:
        CheckpointError: The folder holds no checkpoint of the method `fusion`.
    """
    if (folder / EMBEDDING_CONFIG).exists():
        raise CheckpointError(
            f"Expected a run of the method 'fusion' in {folder}; found the baseline 'embedding', which has no card."
        )
    read_config(folder)
