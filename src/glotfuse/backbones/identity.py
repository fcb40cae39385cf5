"""Which backbone exactly: id, revision and a hash of its weights.

The hash is taken over the weight files, so that it does not depend on the dtype or device a model is loaded with.
A hub file's SHA-256 is the name of its blob in the hub cache; other files are hashed once and remembered by path,
inode, size, and the times of change of content and of inode: the second one cannot be set back, so a file that was
written to is hashed again, whatever its date says. A model that was built in memory is hashed over its tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import CheckpointError
from glotfuse.files import cache_dir, to_json, write_file

if TYPE_CHECKING:
    from torch import nn

_SETTLED_SECONDS = 2.0
"""A file is remembered when its last change is so long ago that a further one would have another time."""
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")


@dataclass(frozen=True)
class BackboneIdentity:
    """What a checkpoint records of a backbone, to refuse another one later."""

    name: str
    """Hub id, local folder or bundled name, as it was asked for."""
    revision: str | None
    """Commit of a hub model, None for others."""
    sha256: str
    """Hash of the weights."""
    architecture: str
    """Class name in transformers."""
    hidden_size: int
    """Width of its hidden states (encoder) or input embeddings (LM)."""
    gguf_file: str | None = None
    """The GGUF file in the folder or repository `name`, None where there is none or `name` is the file."""
    quantization: str = "none"
    """How its weights were quantised when it was loaded; the hash is of the files as they are."""

    def to_dict(self) -> dict[str, Any]:
        """The identity as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BackboneIdentity:
        """The inverse of `to_dict`."""
        return cls(**values)


def hash_folder(folder: Path, memory: Path | None = None) -> str | None:
    """SHA-256 over the weight files of a model folder, None when it has none.

    Args:
        folder: A local folder or a snapshot in the hub cache.
        memory: JSON file that remembers the hashes of files already read.
    """
    for pattern in _WEIGHT_PATTERNS:
        files = sorted(folder.glob(pattern))
        if files:
            digests = [f"{file.name}:{hash_file(file, memory)}" for file in files]
            return hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return None


def hash_module(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's state."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_file(file: Path, memory: Path | None = None) -> str:
    """SHA-256 of one file; see `hash_folder`."""
    resolved = file.resolve()
    if len(resolved.name) == 64 and set(resolved.name) <= set("0123456789abcdef"):
        return resolved.name  # a blob of the hub cache carries its SHA-256 as name
    before = resolved.stat()
    key = _key(resolved, before)
    known = _read_memory(memory)
    if key in known:
        return known[key]
    with resolved.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if time.time() - max(before.st_mtime, before.st_ctime) > _SETTLED_SECONDS:
        others = {k: v for k, v in known.items() if not k.startswith(f"{resolved}:")}
        _write_memory(memory, {**others, key: digest})
    return digest


def _key(file: Path, stat: os.stat_result) -> str:
    return f"{file}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def memory_of_hashes() -> Path:
    """The file of the cache that remembers the hashes of files."""
    return cache_dir() / "weight-hashes.json"


def _read_memory(memory: Path | None) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text("utf8")) if memory else {}
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}  # only a saving of time: an unreadable memory is as good as none


def _write_memory(memory: Path | None, known: dict[str, str]) -> None:
    if memory is None:
        return
    with suppress(CheckpointError):  # likewise: hashing again next time costs only time
        write_file(memory, to_json(known))
