"""A cache of the frozen encoder's hidden states: what is frozen need be computed once per text, not once per epoch.

The store is LMDB: memory-mapped, so that the operating system decides how much of it is in RAM; safe with several
processes (one writes at a time, readers never wait); a commit is there whole or not at all, after a crash too. A text's
key is the hash of its token ids, and each encoder, dtype and choice of layers has a store of its own. States are kept
in half precision, in one contiguous block (T,K,D) per text, and only those of the layers that the mixer reads. States
that were just computed pass through the same rounding, so it makes no difference to a run which of them were cached.

Shapes: B batch, T tokens, K layers that are kept, D encoder width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from glotfuse.backbones import Encoder

logger = logging.getLogger(__name__)

_DTYPES = {b"h": torch.float16, b"b": torch.bfloat16}
_FLOAT16_LIMIT = 60_000.0
_OVERHEAD = 1.1
"""Size of the store relative to the states alone: pages are whole, keys and a tree come on top."""
_MIN_BYTES = 1 << 20


def bytes_needed(num_tokens: int, num_layers: int, hidden_size: int) -> int:
    """Room in bytes that the states of so many tokens take."""
    return int(num_tokens * num_layers * hidden_size * 2 * _OVERHEAD)


def why_not(needed: int, budget: int, folder: Path) -> str | None:
    """Why states of so many bytes are better not kept, None where they fit.

    Args:
        needed: What they take.
        budget: The most that the user allows.
        folder: Where they would be; it need not exist yet.
    """
    if needed > budget:
        return f"they need {needed / 1e9:.1f} GB of at most {budget / 1e9:.1f} (encoder.cache_gb)"
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free // 2:
        return f"they need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free"
    if not os.access(existing, os.W_OK):
        return f"{existing} cannot be written"
    return None


class FeatureCache:
    """Encodes texts whose states are not in the store, and reads those that are.

    Args:
        encoder: The frozen encoder.
        layers: Indices of the layers to keep, from 0.
        folder: Where stores are; deleting it is always safe.
        max_bytes: Most bytes that this encoder's store may take; texts beyond are computed each time.

    Attributes:
        hits: Texts that were read.
        misses: Texts that were computed.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, encoder: Encoder, layers: Sequence[int], folder: Path, max_bytes: int):
        import lmdb

        self.encoder = encoder
        self.layers = tuple(layers)
        self.hits = self.misses = 0
        self._full_error = lmdb.MapFullError
        self._full = False
        self.path = folder / self._name()
        max_bytes = max(max_bytes, _MIN_BYTES)
        self._store = self._open(max_bytes)
        if self._used() > 0.9 * max_bytes:  # older texts made it full: begin anew
            self._store.close()
            shutil.rmtree(self.path, ignore_errors=True)
            self._store = self._open(max_bytes)

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is pending and closes the store."""
        self._store.close()

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of right-padded ids (B,T) under a mask (B,T): K tensors (B,T,D), zero at padding.

        The tensors are views of one (B,T,K,D) on the CPU, in the encoder's dtype.
        """
        lengths = attention_mask.sum(1).tolist()
        rows = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
        keys = [hashlib.sha256(json.dumps(row).encode()).digest() for row in rows]
        shape = (*input_ids.shape, len(self.layers), self.encoder.hidden_size)
        states = torch.zeros(shape, dtype=self.encoder.dtype)
        missing = []
        with self._store.begin(buffers=True) as transaction:
            for row, key in enumerate(keys):
                block = transaction.get(key)
                if block is None:
                    missing.append(row)
                else:
                    states[row, : lengths[row]] = _unpack(block, lengths[row], *shape[2:])
        if missing:
            found = self._encode([rows[row] for row in missing])
            self._save({keys[row]: found[i] for i, row in enumerate(missing)})
            for i, row in enumerate(missing):
                states[row, : lengths[row]] = found[i]
        self.hits += len(rows) - len(missing)
        self.misses += len(missing)
        return states.unbind(2)

    def _encode(self, rows: list[list[int]]) -> list[Tensor]:
        """States (T,K,D) of each row in half precision."""
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.encoder.pad_token_id] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
        with torch.no_grad():
            stacked = torch.stack([x.cpu() for x in self.encoder(ids, mask, self.layers)], dim=2)
        return [_to_half(stacked[i, : len(row)]) for i, row in enumerate(rows)]

    def _save(self, found: dict[bytes, Tensor]) -> None:
        if self._full:
            return
        try:
            with self._store.begin(write=True) as transaction:
                for key, states in found.items():
                    transaction.put(key, _pack(states))
        except self._full_error:
            self._full = True
            logger.warning(
                "The store of encoder states in %s is full (%.1f GB): further texts are encoded each time. "
                "Raise encoder.cache_gb, or delete the folder.",
                self.path,
                self._used() / 1e9,
            )

    def _open(self, max_bytes: int) -> Any:
        import lmdb

        self.path.mkdir(parents=True, exist_ok=True)
        return lmdb.open(str(self.path), map_size=max_bytes, metasync=False, readahead=False, max_readers=512)

    def _used(self) -> int:
        return int(self._store.stat()["psize"]) * (int(self._store.info()["last_pgno"]) + 1)

    def _name(self) -> str:
        """One store for each encoder, dtype and choice of layers."""
        identity = self.encoder.identity
        parts = [identity.sha256, identity.architecture, str(self.encoder.dtype), self.layers, "1"]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _to_half(states: Tensor) -> Tensor:
    """float16, or bfloat16 where values exceed its range (T5-like residual sums do)."""
    fits = bool(states.abs().max() < _FLOAT16_LIMIT)
    return states.to(torch.float16 if fits else torch.bfloat16)


def _pack(states: Tensor) -> bytes:
    kind = next(code for code, dtype in _DTYPES.items() if dtype == states.dtype)
    return bytes(states.contiguous().view(torch.uint8).numpy().tobytes()) + kind


def _unpack(block: Any, length: int, num_layers: int, width: int) -> Tensor:
    """A read-only view of a stored block, (T,K,D)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of memory that cannot be written
        flat = torch.frombuffer(block, dtype=_DTYPES[bytes(block[-1:])], count=length * num_layers * width)
    return flat.view(length, num_layers, width)
