"""LoRA on the LM through peft: a few trained tensors beside weights that stay as they are.

An adapted LM is a copy of the LM's structure around the very same weight tensors, so the LM that was given can go on
serving others unadapted, and nothing is in memory twice. The base stays in evaluation mode without gradient; only the
adapter's own dropout is switched on in training. Adapter weights are in float32 whatever the LM's dtype.

Source: Hu et al. 2021, LoRA, arXiv 2106.09685; files are those of peft's `save_pretrained`.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes

from glotfuse.backbones.adapter import Adapter
from glotfuse.backbones.lm import LM
from glotfuse.errors import BackboneError, CheckpointError, ConfigError

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"

_NAME = "default"
_PREFIX = "base_model.model."
"""How peft's files call the adapted model."""


def require_peft() -> None:
    """Finds out whether peft is installed.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "Expected the package peft for an adapter on the LM; it is not installed. "
            "Install it with: pip install 'glotfuse[lora]'"
        )


def add_adapter(
    lm: LM,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    seed: int = 0,
) -> LM:
    """An LM with a fresh LoRA adapter, which changes nothing before it is trained; the given LM stays as it is.

    Args:
        lm: The frozen LM; its weights are shared.
        rank: Width of the two factors.
        alpha: The product is scaled by alpha / rank.
        dropout: Probability of the adapter's input elements in training.
        target_modules: Names (ends of names) of adapted layers; None takes all linear ones but the output layer.
        seed: Of the start values.

    Raises:
        ConfigError: peft is not installed.
        BackboneError: The LM has an adapter, or no such layers.
    """
    require_peft()
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if target_modules is None else list(target_modules),
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in lm.model.modules()),  # GPT-2's linear maps
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[] if lm.device.type == "cpu" else None):
        torch.manual_seed(seed)
        return _adapted(lm, config, learning=True)


def load_adapter(lm: LM, files: Mapping[str, bytes], where: str) -> LM:
    """An LM with a trained adapter that stays fixed; the given LM stays as it is.

    Args:
        lm: The frozen LM; its weights are shared.
        files: Contents of `ADAPTER_WEIGHTS` and `ADAPTER_CONFIG`.
        where: Their folder, for messages.

    Raises:
        ConfigError: peft is not installed.
        CheckpointError: The files are no LoRA adapter of this LM.
    """
    require_peft()
    from peft import LoraConfig, PeftConfig

    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ADAPTER_CONFIG).write_bytes(files[ADAPTER_CONFIG])
            config = PeftConfig.from_pretrained(folder)
        tensors = load_tensors(files[ADAPTER_WEIGHTS])
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"Expected an adapter in peft's format in {where}; found: {error}.") from None
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"Expected a LoRA adapter in {where}; found {type(config).__name__}.")
    adapted = _adapted(lm, config, learning=False)
    assert adapted.adapter is not None
    adapted.adapter.load({_inner_name(name): tensor for name, tensor in tensors.items()})
    return adapted


def adapter_files(lm: LM) -> dict[str, bytes]:
    """The adapter as peft saves it, by file name; `peft.PeftModel.from_pretrained` reads the folder."""
    assert lm.adapter is not None
    config = copy.deepcopy(lm.model.peft_config[_NAME])
    config.inference_mode = True
    config.base_model_name_or_path, config.revision = lm.identity.name, lm.identity.revision
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        values = json.loads((Path(folder) / ADAPTER_CONFIG).read_text("utf8"))
    values["target_modules"] = sorted(values["target_modules"])
    tensors = {_file_name(name): t.detach().cpu().contiguous() for name, t in lm.adapter.tensors.items()}
    return {
        ADAPTER_WEIGHTS: tensors_to_bytes(tensors, metadata={"format": "pt"}),
        ADAPTER_CONFIG: (json.dumps(values, indent=2) + "\n").encode("utf8"),
    }


def merge_adapter(lm: LM) -> LM:
    """An LM with the adapter added to a copy of the weights: faster, and a copy more in memory."""
    assert lm.adapter is not None
    merged = copy.deepcopy(lm, {id(x): x for x in (lm.tokenizer, lm.adapter.base)})
    assert merged.adapter is not None
    merged.model = merged.adapter.tuner.merge_and_unload()
    merged.adapter, merged.merged = None, True
    merged.requires_grad_(False)
    return merged.eval()


def _adapted(lm: LM, config: Any, *, learning: bool) -> LM:
    from peft.tuners.lora import LoraModel

    if lm.adapter is not None:
        raise BackboneError("Expected an LM without an adapter; found one that has one. Load the LM anew.")
    shared = [*lm.parameters(), *lm.buffers(), lm.tokenizer]
    adapted = copy.deepcopy(lm, {id(x): x for x in shared})
    try:
        tuner = LoraModel(adapted.model, config, _NAME)
    except ValueError as error:
        raise BackboneError(
            f"Expected layers of {type(lm.model).__name__} that an adapter can stand beside; peft says: "
            f"{str(error).splitlines()[0]} Correct adapter.target_modules."
        ) from error
    adapted.adapter = Adapter(tuner, lm, learning)
    return adapted


def _file_name(name: str) -> str:
    return _PREFIX + name.replace(f".{_NAME}.", ".")


def _inner_name(name: str) -> str:
    inner, end = name.removeprefix(_PREFIX).rsplit(".", 1)
    return f"{inner}.{_NAME}.{end}"
