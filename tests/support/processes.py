"""Starts real processes that work together, as a launcher does, but without the time that a launcher takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import glotfuse

SOURCE = str(Path(glotfuse.__file__).parents[1])


def environment(cache: Path) -> dict[str, str]:
    """Of a process that uses this source and a cache of its own, on one thread."""
    own = {"PYTHONPATH": SOURCE, "GLOTFUSE_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def start_together(arguments: Sequence[str], cache: Path, count: int = 2) -> list[subprocess.Popen[str]]:
    """Starts `python -m glotfuse` with the same arguments in processes that are one group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "glotfuse", *arguments]
    return [
        subprocess.Popen(
            command,
            env={**environment(cache), **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], seconds: float = 200) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; none is left behind."""
    try:
        ends = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *end) for process, end in zip(processes, ends, strict=True)]
