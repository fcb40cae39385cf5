"""Errors for users: what was expected, what was found, what to do next.

Everything a user can cause raises a subclass of `GlotfuseError`; the command line prints its message
without a traceback. Programmer errors stay plain Python exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GlotfuseError(ValueError):
    """Base of all errors that a user can cause and mend."""


class ConfigError(GlotfuseError):
    """A recipe or option is wrong: unknown key, wrong type, value out of range."""


class DataError(GlotfuseError):
    """A data file, row, column, label or language is missing or malformed."""


class PromptError(GlotfuseError):
    """The prompt cannot be built: template, label words or lengths do not fit."""


class BackboneError(GlotfuseError):
    """An encoder or LM cannot be found, loaded or used."""


class CheckpointError(GlotfuseError):
    """A checkpoint is missing, damaged, cannot be written, or belongs to other backbones."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean X?"` for the known name nearest to `name`, or an empty string."""
    candidates = list(known)
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[matches[0]]!r}?" if matches else ""
