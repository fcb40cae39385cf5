"""Work in a forked process that dies, or whose disk is full, at a chosen moment; and what it left behind.

Moments are counted by the file operations of Python below a folder, which every process repeats in the same order: the
n-th of them is not done any more. What Rust and C write in between is met by deaths after a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")


def forked(
    work: Callable[[], Any],
    log: Path,
    *,
    watched: Path | None = None,
    die_at: int | None = None,
    fail_at: int | None = None,
    die_after: float | None = None,
) -> tuple[int, list[str]]:
    """Does the work in a process of its own.

    Args:
        work: What is done; an error that leaves it is exit code 1, and its traceback is in the log.
        log: Gets what it prints.
        watched: Folder below which file operations count.
        die_at: Kill the process at this operation, counted from 1.
        fail_at: The disk is full for this one, and for all later ones that make a file.
        die_after: Kill it after so many seconds.

    Returns:
        Exit code, of a killed process -9; and the operations, as `open: training.json`, up to the last.
    """
    noted = log.with_suffix(".operations")
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_the_child(work, log, noted, watched, die_at, fail_at)
    if die_after is not None:
        _kill_after(child, die_after)
    _, status = os.waitpid(child, 0) if die_after is None else _ended.pop(child)
    done = noted.read_text("utf8").splitlines() if noted.exists() else []
    return os.waitstatus_to_exitcode(status), done


_ended: dict[int, tuple[int, int]] = {}


def _kill_after(child: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _ended[child] = found, status
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _ended[child] = os.waitpid(child, 0)


def _be_the_child(
    work: Callable[[], Any], log: Path, noted: Path, watched: Path | None, die_at: int | None, fail_at: int | None
) -> None:
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        notes = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        if watched is not None:
            sys.addaudithook(_hook(str(watched), notes, die_at, fail_at))
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hook(watched: str, notes: int, die_at: int | None, fail_at: int | None) -> Callable[[str, Any], None]:
    count = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal count
        if event not in OPERATIONS or not str(arguments[0]).startswith(watched):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        os.write(notes, f"{event}: {os.path.relpath(str(arguments[0]), watched)}\n".encode())
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fail_at is not None and count >= fail_at and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    return hook


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files below a folder that match, by their names."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }


RESULTS = ("fusion.safetensors", "probe.safetensors", "config.json", "predictions/*/*.jsonl", "report-*")
"""What must be the same bytes after any number of deaths."""


def left_over(folder: Path) -> list[str]:
    """What a finished run should not leave behind."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name == "state" or path.name.startswith((".partial-", ".whole-"))
    )
