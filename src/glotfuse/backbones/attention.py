"""Attention kernels of transformers: which can be used here, and what runs where one takes no mask of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from glotfuse.errors import BackboneError, ConfigError

_FALLBACK = "sdpa"


def is_flash(implementation: str | None) -> bool:
    """Whether a kernel is a FlashAttention, which takes no mask but padding, and half precision alone."""
    return "flash" in (implementation or "")


def check_attention(role: str, name: str, implementation: str | None, dtype: Any, device: torch.device | None) -> None:
    """Refuses FlashAttention where its kernels cannot run.

    Args:
        role: Of the model, such as `an encoder`.
        name: Of the model.
        implementation: What was asked for.
        dtype: Of the weights; `auto`, while it is not known.
        device: Where they will be; None where a map spreads them.

    Raises:
        ConfigError: The device is no GPU, or the weights are in float32.
    """
    if not is_flash(implementation):
        return
    if device is not None and device.type in ("cpu", "mps"):
        raise ConfigError(
            f"Expected a CUDA device for attn_implementation {implementation!r}; found {device.type} for {role}, "
            f"{name!r}. Leave it out, or set sdpa or eager."
        )
    if dtype == torch.float32:
        raise ConfigError(
            f"Expected a dtype of bfloat16 or float16 with attn_implementation {implementation!r}; found float32 for "
            f"{role}, {name!r}. Set its dtype to bfloat16, or attn_implementation to sdpa."
        )


def refusal_of_attention(role: str, name: str, implementation: str | None, error: Exception) -> BackboneError | None:
    """What to say where a model did not load for the attention that was asked of it; None for other reasons."""
    reason = str(error).strip()
    if not implementation or not re.search(r"attention|attn_implementation|`kernels`", reason, re.IGNORECASE):
        return None
    first = re.split(r"\.\s", reason.splitlines()[0])[0].rstrip(".")
    return BackboneError(
        f"Expected an attn_implementation that {role}, {name!r}, can use on this machine; found {implementation!r}: "
        f"{first}. Leave it out, or set sdpa or eager; FlashAttention needs a package of its own, such as flash-attn."
    )


@contextmanager
def masks_obeyed(model: Any) -> Iterator[None]:
    """Runs a model whose kernel takes no mask with one that does, for a pass with a mask added to the scores."""
    config = model.config.get_text_config()
    implementation = getattr(config, "_attn_implementation", None)
    if not is_flash(implementation):
        yield
        return
    config._attn_implementation = _FALLBACK
    try:
        yield
    finally:
        config._attn_implementation = implementation
