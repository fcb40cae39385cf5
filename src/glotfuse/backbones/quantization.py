"""Quantised LMs: which kinds there are, which package each needs, and where it runs.

All are applied while the weights are loaded; what is on the disk, and its hash, stays the original.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from glotfuse.errors import BackboneError, ConfigError, did_you_mean

NONE = "none"


@dataclass(frozen=True)
class Quantization:
    """One kind of quantisation."""

    package: str
    """What has to be installed."""
    devices: tuple[str, ...]
    """Device types that it runs on."""
    make: Callable[[torch.dtype], Any]
    """Makes the config of transformers; the dtype is that of the computation."""


def _bitsandbytes_8bit(_: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _bitsandbytes_4bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _torchao_int8(_: torch.dtype) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _torchao_int4(_: torch.dtype) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int4WeightOnlyConfig(group_size=64, int4_packing_format="tile_packed_to_4d"))


QUANTIZATIONS: Mapping[str, Quantization] = MappingProxyType(
    {
        "bitsandbytes-8bit": Quantization("bitsandbytes", ("cuda", "xpu", "cpu"), _bitsandbytes_8bit),
        "bitsandbytes-4bit": Quantization("bitsandbytes", ("cuda", "xpu", "cpu"), _bitsandbytes_4bit),
        "torchao-int8": Quantization("torchao", ("cuda", "xpu", "cpu"), _torchao_int8),
        "torchao-int4": Quantization("torchao", ("cuda",), _torchao_int4),
    }
)
"""Name in the recipe -> kind."""


def quantization_config(name: str, dtype: torch.dtype | str, device: torch.device) -> Any | None:
    """The config that transformers loads a model with, None for `none`.

    Args:
        name: `none` or a name in `QUANTIZATIONS`.
        dtype: Of the computation; `auto` is bfloat16.
        device: Where the model is to run.

    Raises:
        ConfigError: There is no quantisation of this name.
        BackboneError: Its package is missing or too old, or it does not run on the device.
    """
    if name == NONE:
        return None
    if name not in QUANTIZATIONS:
        known = [NONE, *QUANTIZATIONS]
        raise ConfigError(
            f"Expected a quantization out of {', '.join(known)}; found {name!r}.{did_you_mean(name, known)}"
        )
    kind = QUANTIZATIONS[name]
    if device.type not in kind.devices:
        others = [other for other, each in QUANTIZATIONS.items() if device.type in each.devices]
        raise BackboneError(
            f"Expected a device of the kinds {', '.join(kind.devices)} for the quantization {name}; found "
            f"{device.type}. There, choose one of {', '.join([*others, NONE])}."
        )
    if importlib.util.find_spec(kind.package) is None:
        raise BackboneError(
            f"Expected the package {kind.package} for the quantization {name}; it is not installed. "
            "Install it with: pip install 'glotfuse[quantized]'"
        )
    try:
        return kind.make(dtype if isinstance(dtype, torch.dtype) else torch.bfloat16)
    except (ImportError, ValueError) as error:  # of another release than transformers takes
        raise BackboneError(
            f"Expected a release of {kind.package} that transformers can use for the quantization {name}; it says: "
            f"{str(error).splitlines()[0]} Update it with: pip install -U 'glotfuse[quantized]'"
        ) from error
