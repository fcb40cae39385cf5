"""The device that a run is planned for, here or elsewhere."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from glotfuse.errors import ConfigError

_GROUP = Path("/sys/fs/cgroup/memory.max")
"""A container's own limit."""


@dataclass(frozen=True)
class Device:
    """What the run is planned for."""

    kind: str
    """cpu, cuda, mps, ..."""
    num_bytes: int
    """Its memory."""
    here: bool = True
    """Whether this machine has it."""


def find_device(name: str, memory: int | None = None, *, chosen: bool = False) -> Device:
    """The device that a run is planned for.

    Args:
        name: As in a recipe.
        memory: Its bytes; without `chosen` a given memory makes `auto` a CUDA device.
        chosen: Whether the name was given for the plan.

    Raises:
        ConfigError: It is not on this machine, and its memory is not given.
    """
    cuda = torch.cuda.is_available()
    kind = name.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if cuda or (memory is not None and not chosen) else "cpu"
        if kind == "cpu" and torch.backends.mps.is_available():
            kind = "mps"
    here = kind == "cpu" or (kind == "cuda" and cuda) or (kind == "mps" and torch.backends.mps.is_available())
    if memory is not None:
        return Device(kind, memory, here)
    if not here:
        raise ConfigError(f"Expected a device of this machine; found {name!r}. Say its memory: --memory 24GB.")
    if kind == "cuda":
        return Device(kind, torch.cuda.get_device_properties(name if ":" in name else 0).total_memory)
    if kind == "mps":
        return Device(kind, torch.mps.recommended_max_memory())
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        size = min(size, int(_GROUP.read_text()))
    return Device(kind, size)
