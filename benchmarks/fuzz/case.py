"""A kind of input, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from glotfuse.errors import GlotfuseError

READ, PASSED, REFUSED = "read right", "no crash", "refused"


class Wrong(AssertionError):
    """Neither a clear error nor what was written."""


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: What it is, for messages.
        read: Reads it in an empty folder and returns what was found.
        expected: What was written; None for an input that must be refused; `ANYTHING` for noise.
        may_refuse: Whether an error is right too.
        mentions: What a refusal says.
    """

    name: str
    read: Callable[[Path], Any]
    expected: Any
    may_refuse: bool = False
    mentions: tuple[str, ...] = ()


ANYTHING = object()
"""For damaged input of which nobody can say what it should be: it must not crash."""

KINDS: dict[str, st.SearchStrategy[Case]] = {}
"""All kinds, by name: reader and fault."""


def kind(name: str) -> Callable[[Callable[..., Case]], None]:
    """Adds a kind: a function that draws a case."""

    def add(function: Callable[..., Case]) -> None:
        KINDS[name] = st.composite(function)()

    return add


def outcome(case: Case, folder: Path) -> str:
    """Returns what happened: `read right`, `refused`, or for noise that came through `no crash`.

    Raises:
        Wrong: If it is what may not happen; any other exception comes through as it is.
    """
    try:
        found = case.read(folder)
    except GlotfuseError as error:
        message = str(error)
        message.encode("utf-8")  # can be printed
        if case.expected not in (None, ANYTHING) and not case.may_refuse:
            raise Wrong(f"{case.name}: expected {case.expected!r}, was refused: {message}") from error
        missing = [part for part in case.mentions if part not in message]
        if missing:
            raise Wrong(f"{case.name}: expected {missing} in the message, found: {message}") from error
        return REFUSED
    if case.expected is None:
        raise Wrong(f"{case.name}: expected a refusal, found {found!r}")
    if case.expected is not ANYTHING and found != case.expected:
        raise Wrong(f"{case.name}: expected {case.expected!r}, found {found!r}")
    return PASSED if case.expected is ANYTHING else READ
