"""Files that appear whole or not at all, files with a JSON object per line, and the folder of glotfuse's cache."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from glotfuse.errors import CheckpointError, GlotfuseError

_PARTIAL, _WHOLE = ".partial-", ".whole-"
"""Folders of files on their way: being written, and all on the disk but not yet all in their places."""
_ABANDONED_SECONDS = 600
"""A folder of the first kind that is older is of a process that died, for writing takes seconds."""


def write_files(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    error: type[GlotfuseError] = CheckpointError,
    advice: str = "Free some space or choose another folder.",
) -> None:
    """Writes several files beside their places first and moves them in only when all are on the disk.

    A process that dies before that leaves the folder as it was; of one that dies while they are moved, `complete` moves
    the rest.

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
        _clear(folder)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
        try:
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                with (partial / name).open("wb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _move(partial.rename(folder / partial.name.replace(_PARTIAL, _WHOLE)), folder, files)
    except OSError as cause:
        size = sum(len(content) for content in files.values()) / 1e6
        raise error(
            f"Expected to write {', '.join(files)} ({size:.1f} MB) to {folder}; found: {cause.strerror or cause}. "
            f"Nothing there was changed. {advice}"
        ) from cause


def complete(folder: Path) -> None:
    """Moves in what a process that died had written whole and not yet put in its place; readers of a set call it first.

    Where this process may not write, all stays as it is.
    """
    with suppress(OSError):
        for whole in sorted(folder.glob(f"{_WHOLE}*"), key=lambda path: path.stat().st_mtime_ns):
            _move(whole, folder, [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()])


def _move(whole: Path, folder: Path, names: Iterable[str]) -> None:
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                (whole / name).replace(folder / name)
            except FileNotFoundError:  # a reader has completed it meanwhile
                if not (folder / name).exists():
                    raise
    except OSError:
        shutil.rmtree(whole, ignore_errors=True)  # what cannot be moved now would stand in the way of what comes later
        raise
    shutil.rmtree(whole, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Puts in order what processes that died left behind."""
    complete(folder)
    for partial in folder.glob(f"{_PARTIAL}*"):
        with suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)


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
        except (ValueError, RecursionError):
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
