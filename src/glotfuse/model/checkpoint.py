"""Checkpoints: fusion weights (safetensors), config and the backbones' identity (JSON). Never pickle.

A folder holds `fusion.safetensors`, `config.json` and, after training, `training.json`; `probe.safetensors` where the
model has a probe; `reading.safetensors` where it has kept the fusion from before its task, in half precision; where the
LM has an adapter, `adapter/` holds it in peft's format. The config names the hashes of the
weights, so a damaged or mixed-up file is found out; the backbones are fetched by recorded name and revision and
compared by the hash of their own weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from glotfuse.backbones import LM, BackboneIdentity, BackboneOptions, Encoder, load_encoder, load_lm, merge_adapter
from glotfuse.backbones.byte_fallback import reads_bytes
from glotfuse.backbones.lora import adapter_files, load_adapter
from glotfuse.backbones.pooling import Pooling
from glotfuse.errors import CheckpointError
from glotfuse.files import to_json, write_files
from glotfuse.model import locating, self_check
from glotfuse.model.assembly import ModelT, build_model
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.probe import Probe
from glotfuse.model.recorded import PARTS, identity_of, reading_of
from glotfuse.model.sentence_embeddings import embedding_as
from glotfuse.recipes.config import FusionConfig, PromptConfig
from glotfuse.recipes.loading import section_from_dict
from glotfuse.run_folder import (
    ADAPTER,
    CHECKPOINT_FORMAT,
    CONFIG,
    PROBE,
    READING,
    RECORD,
    WEIGHTS,
    check_parts,
    read_config,
)


def save(model: FusedModel, folder: Path, record: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint; the folder appears whole, or what stood there before stays.

    Raises:
        CheckpointError: It cannot be written (no space, no permission), or the LM's weights are not its own any more.
    """
    if model.lm.merged:
        raise CheckpointError(
            "Expected an LM with its own weights to save beside; found one with an adapter merged into them. "
            "Load the model without merged=True."
        )
    fusion = getattr(model.fusion, "_orig_mod", model.fusion)  # without the prefix that torch.compile gives names
    tensors = {k: v.detach().cpu().contiguous() for k, v in fusion.state_dict().items()}
    check_finite(tensors, "a fusion to save")
    weights = tensors_to_bytes(tensors)
    config = {
        "format": CHECKPOINT_FORMAT,
        "encoder": {
            **model.encoder.identity.to_dict(),
            "prefix": model.encoder.prefix,
            "src_lang": model.encoder.src_lang,
            "byte_fallback": model.encoder.byte_fallback,
            "pooling": model.encoder.pooling.to_dict(),
        },
        "lm": model.lm.identity.to_dict(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **model.settings,
    }
    files = {WEIGHTS: weights}
    if model.lm.adapter is not None:
        adapter = adapter_files(model.lm)
        config["adapter"] = {name: hashlib.sha256(content).hexdigest() for name, content in adapter.items()}
        files.update({f"{ADAPTER}/{name}": content for name, content in adapter.items()})
    if model.reading is not None:
        halves = {name: t.detach().cpu().half().contiguous() for name, t in model.reading.state_dict().items()}
        files[READING] = tensors_to_bytes(halves)
        config["reading_sha256"] = hashlib.sha256(files[READING]).hexdigest()
    if model.probe is not None:
        files[PROBE] = tensors_to_bytes(model.probe.to_tensors())
        config["probe_sha256"] = hashlib.sha256(files[PROBE]).hexdigest()
    reference = self_check.reference(model)
    if reference is not None:
        config["reference"] = reference
    files[CONFIG] = to_json(config)
    if record is not None:
        files[RECORD] = to_json(dict(record))
    write_files(folder, files)


def read_weights(folder: Path, expected_sha256: str, file: str = WEIGHTS) -> dict[str, Any]:
    """Reads a fusion's weights and checks them against the config's hash.

    Raises:
        CheckpointError: The file is missing, damaged, belongs to another config, or holds values that are not finite.
    """
    path = folder / file
    try:
        tensors = dict(load_tensors(_read_checked(path, expected_sha256)))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"Expected safetensors in {path}; found: {error}.") from None
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuses weights that a failed training leaves: every answer of theirs would be the first label.

    Raises:
        CheckpointError: A value is infinite or not a number.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"Expected finite weights in {where}; found {name} with values that are infinite or not a number: "
                "their training diverged. Train again with a lower training.learning_rate or in float32."
            )


def read_probe(folder: Path, config: Mapping[str, Any]) -> Probe | None:
    """The probe that the config records, if any.

    Raises:
        CheckpointError: The file is missing, damaged, or belongs to another config.
    """
    if "probe_sha256" not in config:
        return None
    path = folder / PROBE
    try:
        return Probe.from_tensors(load_tensors(_read_checked(path, config["probe_sha256"])))
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"Expected the tensors of a probe in {path}; found: {error}.") from None


def read_adapter(lm: LM, folder: Path, config: Mapping[str, Any]) -> LM:
    """The LM with the adapter that the config records; the given LM where it records none.

    Raises:
        CheckpointError: A file is missing, damaged, or belongs to another LM.
        ConfigError: peft is not installed.
    """
    if "adapter" not in config:
        return lm
    place = folder / ADAPTER
    return load_adapter(
        lm, {name: _read_checked(place / name, sha) for name, sha in config["adapter"].items()}, str(place)
    )


def weights_identity(config: Mapping[str, Any]) -> str:
    """SHA-256 of all that was trained: of the fusion, or of it with the LM's adapter and the probe."""
    others = [
        *sorted(config.get("adapter", {}).values()),
        *([config["probe_sha256"]] if "probe_sha256" in config else []),
    ]
    if not others:
        return str(config["weights_sha256"])
    parts = [config["weights_sha256"], *others]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_checked(path: Path, expected_sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Expected the weights file {path}; found: {error.strerror}.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256:
        raise CheckpointError(
            f"Expected {path} with SHA-256 {expected_sha256[:16]}..., as {CONFIG} records; found {found[:16]}... "
            f"({len(content)} bytes). The file is damaged or from another run: restore or retrain it."
        )
    return content


def load(
    name: Path | str,
    *,
    model_class: type[ModelT],
    revision: str | None = None,
    encoder: str | Encoder | None = None,
    lm: str | LM | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    encoder_options: BackboneOptions | None = None,
    lm_options: BackboneOptions | None = None,
    merged: bool = False,
) -> ModelT:
    """Loads a checkpoint with its backbones, in evaluation mode.

    Args:
        name: Local folder or hub id.
        model_class: `FusedModel`, or the class of it that users call.
        revision: Of the checkpoint on the hub.
        encoder: Where the encoder is now (folder or id), or a loaded one; None takes the recorded name.
        lm: Where the LM is now (folder or id), or a loaded one; None takes the recorded name.
        device: `auto` or a torch device, where no options are given.
        dtype: Of both backbones, as in `BackboneOptions`, where no options are given.
        trust_remote_code: Whether code from the hub may run, where no options are given.
        encoder_options: How to load the encoder.
        lm_options: How to load the LM; without them it is quantised as it was in training.
        merged: Add the LM's adapter to a copy of its weights, which answers faster and takes more memory. Such a
            model cannot be saved with its adapter again.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or belongs to other backbones.
        BackboneError: A backbone cannot be loaded.
    """
    folder = locating.locate(name, revision)
    config = read_config(folder)
    check_parts(config, folder / CONFIG, PARTS)
    weights = read_weights(folder, config["weights_sha256"])
    identities = {role: identity_of(role, config, folder / CONFIG) for role in ("encoder", "lm")}
    reading, pooling = reading_of(config), config["encoder"].get("pooling")
    how: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    if not isinstance(encoder, Encoder):
        options = encoder_options or BackboneOptions(identities["encoder"].revision, **how)
        own = None if pooling and pooling.get("dense") else Pooling()  # linear maps are read from the encoder's files
        encoder = load_encoder(encoder or identities["encoder"].name, options, **reading, pooling=own)
    _check_identity("encoder", identities["encoder"], encoder.identity, folder)
    check_byte_fallback(encoder, reading["byte_fallback"], folder)
    if "probe_sha256" in config or not (pooling and pooling.get("dense")):
        encoder = embedding_as(encoder, pooling, f"the probe in {folder}")
    if not isinstance(lm, LM):
        lm = load_lm(lm or identities["lm"].name, _lm_options(identities["lm"], lm, lm_options, how))
    _check_identity("lm", identities["lm"], lm.identity, folder)
    if lm.merged:
        raise CheckpointError("Expected an LM with its own weights; found one with an adapter merged into them.")
    lm = read_adapter(lm.plain, folder, config)
    if merged and lm.adapter is not None:
        lm = merge_adapter(lm)
    model = build_model(
        model_class,
        encoder,
        lm,
        fusion=section_from_dict(FusionConfig, config["fusion"], f"{folder / CONFIG}: fusion"),
        prompt=section_from_dict(PromptConfig, config["prompt"], f"{folder / CONFIG}: prompt"),
        **{
            key: config[key]
            for key in ("max_length", "template", "cut_column", "instruction", "labels", "task", "scale")
        },
    )
    load_fusion(model, weights, folder)
    if "reading_sha256" in config:
        _keep_reading(model, read_weights(folder, config["reading_sha256"], READING), folder)
    model.probe = read_probe(folder, config)
    width = model.encoder.embedding_size * len(model.reader.columns) ** 2
    if model.probe is not None and model.probe.landmarks.shape[1] != width:
        raise CheckpointError(
            f"Expected {width} features of {config['template']!r} in {folder / PROBE}; found "
            f"{model.probe.landmarks.shape[1]}. It is of another version: train again."
        )
    self_check.compare(model.eval(), config.get("reference"), folder)
    return model


def _lm_options(
    recorded: BackboneIdentity, name: str | None, options: BackboneOptions | None, how: Mapping[str, Any]
) -> BackboneOptions:
    """The options that were given, or those that the LM was trained with; its GGUF file in both."""
    options = options or BackboneOptions(recorded.revision, quantization=recorded.quantization, **how)
    if options.gguf_file or (name or "").endswith(".gguf"):
        return options
    return replace(options, gguf_file=recorded.gguf_file)


def load_fusion(model: FusedModel, weights: Mapping[str, Any], folder: Path) -> None:
    """Puts read weights into a model's fusion.

    Raises:
        CheckpointError: Names or shapes do not fit.
    """
    try:
        model.fusion.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"Expected weights that fit the config in {folder}; found: {error}") from None


def _keep_reading(model: FusedModel, weights: Mapping[str, Any], folder: Path) -> None:
    try:
        model.keep_reading(weights)
    except RuntimeError as error:
        raise CheckpointError(f"Expected weights in {folder / READING} that fit the config; found: {error}") from None


def check_byte_fallback(encoder: Encoder, recorded: bool, folder: Path) -> None:
    """Refuses an encoder whose token ids of rare characters are others than those of training.

    Raises:
        CheckpointError: It reads them as bytes and the checkpoint does not, or the other way round.
    """
    if encoder.byte_fallback == recorded or (recorded and reads_bytes(encoder.tokenizer)):
        return
    raise CheckpointError(
        f"Expected an encoder with byte_fallback {str(recorded).lower()}, as {folder} was trained with; found "
        f"{str(encoder.byte_fallback).lower()}. Load it with load_encoder(..., byte_fallback={recorded}), or leave it "
        "to the checkpoint to load."
    )


def _check_identity(role: str, expected: BackboneIdentity, found: BackboneIdentity, folder: Path) -> None:
    if found.sha256 != expected.sha256:
        raise CheckpointError(
            f"Expected the {role} that {folder} was trained with: {expected.name} ({expected.architecture}, width "
            f"{expected.hidden_size}, weights {expected.sha256[:16]}...); found {found.name} ({found.architecture}, "
            f"width {found.hidden_size}, weights {found.sha256[:16]}...). Fusion weights fit no other backbone."
        )
