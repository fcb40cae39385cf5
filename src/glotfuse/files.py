"""Files that appear whole or not at all, files with a JSON object per line, and the folder of glotfuse's cache."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glotfuse.errors import CheckpointError, GlotfuseError


def write_files(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    error: type[GlotfuseError] = CheckpointError,
    advice: str = "Free some space or choose another folder.",
) -> None:
    """Writes several files beside their places first and moves them in only when all are on the disk.

    Args:
        folder: Made if need be.
        files: Path below the folder to content.
        error: Raised where they cannot be written.
        advice: Its last sentence.

    Raises:
        GlotfuseError: They cannot be written; nothing of the folder has changed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        try:
            for name, content in files.items():
                for place in (partial, folder):
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                with (partial / name).open("wb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
            for name in files:
                (partial / name).replace(folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as cause:
        size = sum(len(content) for content in files.values()) / 1e6
        raise error(
            f"Expected to write {', '.join(files)} ({size:.1f} MB) to {folder}; found: {cause.strerror or cause}. "
            f"Nothing there was changed. {advice}"
        ) from cause


def write_file(path: Path, content: bytes | str, **options: Any) -> None:
    """Writes one file, text as UTF-8; options and errors as in `write_files`."""
    write_files(path.parent, {path.name: content.encode("utf8") if isinstance(content, str) else content}, **options)


def to_json(values: Any) -> bytes:
    """Plain values as the JSON that glotfuse writes: indented, in UTF-8, with a line's end."""
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode("utf8")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file; none where there is no file, and without lines that a crash has torn."""
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            found.append(values)
    return found


def cache_dir() -> Path:
    """`GLOTFUSE_CACHE`, else `glotfuse` in `XDG_CACHE_HOME`, else in `.cache` of the home folder."""
    own, common = os.environ.get("GLOTFUSE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    return (Path(common).expanduser() if common else Path.home() / ".cache") / "glotfuse"
