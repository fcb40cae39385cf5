"""Importing glotfuse and asking for help load no heavy library and take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import glotfuse

HEAVY = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "pyarrow", "matplotlib", "sklearn", "fastapi")
SECONDS = 1.5

CODE_HELP = """
import contextlib, io, sys
sys.argv = ["glotfuse", *{arguments!r}]
from glotfuse.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    try:
        main()
    except SystemExit as exit:
        assert not exit.code, exit.code
assert "Usage" in shown.getvalue(), shown.getvalue()
"""
REPORT = "\nimport json, sys\nprint(json.dumps(sorted(name for name in sys.modules if '.' not in name)))"


def modules_after(code: str) -> tuple[set[str], float]:
    """Top-level modules that a fresh interpreter holds after some code, and the fastest of three runs in seconds."""
    source = str(Path(glotfuse.__file__).parents[1])
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "SYSTEMROOT") if key in os.environ}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        command = [sys.executable, "-c", code + REPORT]
        result = subprocess.run(command, capture_output=True, text=True, env={**clean, "PYTHONPATH": source})
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
        if seconds[-1] < SECONDS:
            break
    return set(json.loads(result.stdout.splitlines()[-1])), min(seconds)


def assert_light(code: str) -> None:
    modules, seconds = modules_after(code)
    assert "glotfuse" in modules
    assert modules & set(HEAVY) == set()
    assert seconds < SECONDS


@pytest.mark.parametrize("module", ["glotfuse", "glotfuse.recipes.config", "glotfuse.errors", "glotfuse.tasks"])
def test_import_is_light(module: str) -> None:
    assert_light(f"import {module}")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["classify", "--help"]], ids=" ".join)
def test_help_is_light(arguments: list[str]) -> None:
    assert_light(CODE_HELP.format(arguments=arguments))


def test_import_changes_nothing_outside() -> None:
    """No environment variable, log handler, warning filter or working directory is touched."""
    code = """
import logging, os, sys, warnings
before = (dict(os.environ), list(logging.root.handlers), list(warnings.filters), os.getcwd(), list(sys.path))
import glotfuse, glotfuse.recipes.config, glotfuse.errors, glotfuse.tasks
assert before == (dict(os.environ), list(logging.root.handlers), list(warnings.filters), os.getcwd(), list(sys.path))
"""
    modules_after(code)
