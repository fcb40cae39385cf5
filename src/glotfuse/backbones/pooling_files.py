"""Reads how an encoder embeds sentences from the files of sentence-transformers beside it.

`modules.json` lists what runs after the encoder, in order; `1_Pooling/config.json` names the modes of the pooling, by
one switch each or, in newer files, as `pooling_mode`; `2_Dense/` and so on hold linear maps. A model without
`modules.json` is pooled by the mean. `Normalize` at the end needs nothing: embeddings are compared at length one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors

from glotfuse.backbones.pooling import ACTIVATIONS, MODES, Dense, Pooling
from glotfuse.errors import BackboneError

logger = logging.getLogger(__name__)

_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_NOTHING_TO_DO = ("Normalize", "Dropout")


def read_pooling(source: str, revision: str | None = None) -> Pooling:
    """The pooling that a model's files describe; the mean where they describe none.

    Args:
        source: Local folder or hub id.
        revision: Branch, tag or commit of a hub model.

    Raises:
        BackboneError: A file is missing or damaged, or describes what is not known here.
    """
    try:
        path = _find(source, "modules.json", revision)
    except OSError as error:
        logger.warning(
            "Whether %s has a pooling of its own (modules.json) cannot be read from the hub (%s): its sentence "
            "embeddings are means. Name the pooling with encoder.pooling, or connect once.",
            source,
            type(error).__name__,
        )
        return Pooling()
    if path is None:
        return Pooling()
    pooling, normalised = None, False
    for kind, folder in _modules(source, path):
        if kind == "Transformer" and pooling is None:
            continue
        if kind == "Pooling" and pooling is None:
            pooling = _read_modes(source, _config(source, folder, revision))
        elif kind == "Dense" and pooling is not None and not normalised:
            dense = _read_dense(source, folder, revision)
            pooling = Pooling(pooling.modes, pooling.include_prompt, (*pooling.dense, dense))
        elif kind in _NOTHING_TO_DO and pooling is not None:
            normalised = normalised or kind == "Normalize"
        else:
            expected = "a Transformer, a Pooling, then Dense and at last Normalize in modules.json"
            raise _unknown(source, expected, f"{kind} in {folder!r}")
    return pooling or Pooling()


def _modules(source: str, path: Path) -> list[tuple[str, str]]:
    """Class name and folder of each module."""
    try:
        modules = json.loads(path.read_text("utf8"))
        return [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unknown(source, "a list of modules with type and path in modules.json", repr(error)) from None


def _read_modes(source: str, config: Mapping[str, Any]) -> Pooling:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in _SWITCHES.items() if config.get(switch)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        raise _unknown(source, f"poolings out of {', '.join(MODES)}", repr(modes))
    return Pooling(tuple(modes), bool(config.get("include_prompt", True)))


def _read_dense(source: str, folder: str, revision: str | None) -> Dense:
    config = _config(source, folder, revision)
    named = config.get("activation_function", "torch.nn.modules.activation.Tanh")  # sentence-transformers' default
    activation = str(named or "Identity").rpartition(".")[2]
    reads = config.get("module_input_name") or "sentence_embedding"
    writes = config.get("module_output_name") or reads
    if activation not in ACTIVATIONS or config.get("use_residual") or {reads, writes} != {"sentence_embedding"}:
        expected = f"a Dense from sentence_embedding to itself, with one of {', '.join(ACTIVATIONS)} and no residual"
        raise _unknown(source, expected, f"{folder}/config.json with {dict(config)}")
    try:
        path = _find(source, f"{folder}/model.safetensors", revision)
        if path is not None:
            content = path.read_bytes()
            tensors = load_tensors(content)
        else:
            path = _find(source, f"{folder}/pytorch_model.bin", revision)
            if path is None:
                raise FileNotFoundError(f"{folder}/model.safetensors")
            content = path.read_bytes()
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        bias = tensors.get("linear.bias")
        weight = tensors["linear.weight"].float()
    except Exception as error:  # torch.load fails in many ways
        raise _unknown(source, f"the weights linear.weight of {folder}", f"{type(error).__name__}: {error}") from error
    return Dense(weight, None if bias is None else bias.float(), activation, hashlib.sha256(content).hexdigest())


def _config(source: str, folder: str, revision: str | None) -> Mapping[str, Any]:
    name = f"{folder}/config.json"
    try:
        path = _find(source, name, revision)
        if path is None:
            raise FileNotFoundError(name)
        values = json.loads(path.read_text("utf8"))
        if not isinstance(values, dict):
            raise ValueError(f"{type(values).__name__} in {name}")
        return values
    except (OSError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise _unknown(source, f"the file {name} that its modules.json names", found) from None


def _find(source: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or a hub model, None where the model has none.

    Raises:
        OSError: The hub cannot be asked.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(source, name, revision=revision)
    if cached is not None:  # what an earlier call found out holds offline too
        return None if cached is _CACHED_NO_EXIST else Path(str(cached))
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def _unknown(source: str, expected: str, found: str) -> BackboneError:
    return BackboneError(
        f"Expected {expected}, to know how {source} embeds sentences; found {found}. Name a pooling yourself, with "
        f"the recipe's encoder.pooling or load_encoder(pooling=...), out of {', '.join(MODES)}."
    )
