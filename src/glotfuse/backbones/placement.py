"""Where a backbone's parts are: on one device, or spread over several by accelerate."""

from __future__ import annotations

import logging
from typing import Any

import torch

logger = logging.getLogger(__name__)


def input_device(model: Any) -> torch.device:
    """Where a model's input embeddings are computed.

    Weights that accelerate keeps elsewhere (CPU, disk) are on `meta` between calls; its hook knows where they run.
    """
    embeddings = model.get_input_embeddings()
    device = getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None)
    if device is not None:
        return torch.device(device)
    found: torch.device = embeddings.weight.device
    return found


def input_dtype(model: Any) -> torch.dtype:
    """Dtype of a model's input embeddings; quantised weights have others."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def is_fixed(model: Any) -> bool:
    """Whether accelerate placed the model's parts or its weights are quantised: it neither moves nor changes dtype."""
    return getattr(model, "hf_device_map", None) is not None or getattr(model, "hf_quantizer", None) is not None


def say_fixed(model: Any) -> None:
    """Logs that such a model stays as it was loaded."""
    logger.warning(
        "%s stays as it was loaded, with its devices and dtypes: it is quantised or placed by device_map. "
        "Load it anew to have it otherwise.",
        type(model).__name__,
    )


def device_map(**backbones: Any) -> dict[str, str]:
    """Devices of the parts of encoder and LM, such as `lm.model.layers.0`, where accelerate placed some.

    Raises:
        AttributeError: Nothing was placed. Other libraries ask by `hasattr`.
    """
    placed = {role: getattr(backbone.model, "hf_device_map", None) for role, backbone in backbones.items()}
    if not any(placed.values()):
        raise AttributeError("hf_device_map")
    parts = {role: found or {"": str(backbones[role].device)} for role, found in placed.items()}
    return {f"{role}.{name}".rstrip("."): device for role in parts for name, device in parts[role].items()}
