"""What a result came from: command, hardware and versions, as plain values."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from glotfuse.distributed import world_size

_PACKAGES = ("glotfuse", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "datasets")


def command_line() -> str:
    """The command as it was given, with the program's name alone in place of its path."""
    program, *arguments = sys.argv
    return shlex.join([Path(program).name, *arguments])


def hardware() -> dict[str, str | int]:
    """Processor, cores, memory and accelerator of this machine, and the number of processes that worked together."""
    import torch

    found: dict[str, str | int] = {"processor": _processor(), "cores": os.cpu_count() or 1}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    elif torch.backends.mps.is_available():
        found["accelerator"] = "mps"
    found["processes"] = world_size()
    return found


def versions() -> dict[str, str]:
    """Of python and the packages that numbers depend on, as far as they are installed."""
    return {"python": platform.python_version(), **installed(_PACKAGES)}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, by name."""
    found = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
