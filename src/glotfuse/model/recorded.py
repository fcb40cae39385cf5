"""What the config of a checkpoint has to record: its parts with their types, and which backbones they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from glotfuse.backbones import BackboneIdentity
from glotfuse.errors import CheckpointError
from glotfuse.run_folder import check_parts

PARTS: dict[str, tuple[type, ...]] = {
    "encoder": (dict,),
    "lm": (dict,),
    "fusion": (dict,),
    "prompt": (dict,),
    "max_length": (int,),
    "template": (str,),
    "cut_column": (str,),
    "instruction": (str, NoneType),
    "labels": (list, tuple),
    "task": (str,),
    "scale": (float, int, NoneType),
}
"""Without which no model can be put together."""
_IDENTITY: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "revision": (str, NoneType),
    "sha256": (str,),
    "architecture": (str,),
    "hidden_size": (int,),
}
_READING: dict[str, Any] = {"prefix": "", "src_lang": None, "byte_fallback": False}
"""What the encoder's entry says beside its identity, and what it means where it is missing, as in older checkpoints."""
_READING_KINDS: dict[str, tuple[type, ...]] = {
    "prefix": (str,),
    "src_lang": (str, NoneType),
    "byte_fallback": (bool,),
    "pooling": (dict,),
}


def reading_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """How the encoder of a checkpoint reads texts: options of `load_encoder`."""
    return {key: config["encoder"].get(key, missing) for key, missing in _READING.items()}


def identity_of(role: str, config: Mapping[str, Any], path: Path) -> BackboneIdentity:
    """Which encoder or LM a config was written with.

    Args:
        role: `encoder` or `lm`.
        config: Read from `path`, with `PARTS` checked.
        path: For messages.

    Raises:
        CheckpointError: The entry is malformed, or of a newer version.
    """
    values = {key: value for key, value in config[role].items() if key not in _READING_KINDS}
    check_parts(values, path, _IDENTITY)
    check_parts(config[role], path, {key: kind for key, kind in _READING_KINDS.items() if key in config[role]})
    try:
        return BackboneIdentity.from_dict(values)
    except TypeError as error:
        raise CheckpointError(
            f"Expected what identifies the {role} in {path}; found another key: {error}. Update glotfuse."
        ) from None
