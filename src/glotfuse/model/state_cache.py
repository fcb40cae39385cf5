"""A cache of the frozen encoder's hidden states: what is frozen need be computed once per text, not once per epoch.

The store is LMDB: memory-mapped, so that the operating system decides how much of it is in RAM; safe with several
processes (one writes at a time, readers never wait); a commit is there whole or not at all, after a crash too. A text's
key is the hash of its token ids, and each encoder, dtype and choice of layers has a store of its own. States are kept
in half precision, in one contiguous block (T,K,D) per text, and only those of the layers that the mixer reads. States
that were just computed pass through the same rounding, so it makes no difference to a run which of them were cached.

It only saves time: whatever goes wrong with the store, states are then computed each time, rounded as they would have
been, and a warning says why.
LMDB does not work on network file systems; `GLOTFUSE_CACHE` names a folder on a local disk.

Shapes: B batch, T tokens, K layers that are kept, D encoder width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from glotfuse.backbones import Encoder
from glotfuse.errors import GlotfuseError
from glotfuse.inputs.padding import pad_and_mask

logger = logging.getLogger(__name__)

STORES = "features"
"""Folder of the stores inside glotfuse's cache."""

_DTYPES = {b"h": torch.float16, b"b": torch.bfloat16}
_FLOAT16_LIMIT = 60_000.0
_OVERHEAD = 1.1
"""Size of the store relative to the states alone: pages are whole, keys and a tree come on top."""
_MIN_BYTES = 1 << 20
_LOCK_SECONDS = 60


class StateCacheError(GlotfuseError):
    """States cannot or should not be kept; the message says why."""


class RoundedStates:
    """Encodes texts anew each time, with the rounding of states that are kept: a run's weights are then the same.

    Args:
        encoder: The frozen encoder.
        layers: Indices of the layers to give, from 0.

    Attributes:
        hits: Texts that were read from a store.
        misses: Texts that were computed.
    """

    def __init__(self, encoder: Encoder, layers: Sequence[int]):
        self.encoder = encoder
        self.layers = tuple(layers)
        self.hits = self.misses = 0

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of right-padded ids (B,T) under a mask (B,T): K tensors (B,T,D), zero at padding.

        The tensors are views of one (B,T,K,D) on the encoder's device, in its dtype.

        Raises:
            ValueError: The padding is not at the right.
        """
        if bool((attention_mask[:, 1:] & ~attention_mask[:, :-1]).any()):
            raise ValueError("Expected rows padded at the right; found a real token after padding.")
        lengths = attention_mask.sum(1).tolist()
        rows = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
        keys = [_key(row) for row in rows]
        blocks = self._read(keys)
        missing = [i for i, block in enumerate(blocks) if block is None]
        if missing:
            found = self._encode([rows[i] for i in missing])
            self._write({keys[i]: states for i, states in zip(missing, found, strict=True)})
            for i, states in zip(missing, found, strict=True):
                blocks[i] = states
        self.hits += len(rows) - len(missing)
        self.misses += len(missing)
        known = [block for block in blocks if block is not None]
        dtypes = {block.dtype for block in known}
        shape = (*input_ids.shape, len(self.layers), self.encoder.hidden_size)
        states = torch.zeros(shape, dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32)
        for row, block in enumerate(known):
            states[row, : lengths[row]] = block
        # half precision travels to the device, and becomes the encoder's dtype there
        return states.to(self.encoder.device).to(self.encoder.dtype).unbind(2)

    def _encode(self, rows: list[list[int]]) -> list[Tensor]:
        """States (T,K,D) of each row in half precision."""
        ids, mask = pad_and_mask(rows, self.encoder.pad_token_id)
        stacked = torch.stack(self.encoder(ids, mask, self.layers), dim=2).cpu()
        return [_to_half(stacked[i, : len(row)]) for i, row in enumerate(rows)]

    def _read(self, keys: list[bytes]) -> list[Tensor | None]:
        return [None] * len(keys)

    def _write(self, found: dict[bytes, Tensor]) -> None:
        """Nothing."""


class StateCache(RoundedStates):
    """Encodes texts whose states are not in the store, and reads those that are.

    Args:
        encoder: The frozen encoder.
        layers: Indices of the layers to keep, from 0.
        folder: Where stores are; deleting it is safe while nothing runs.
        max_bytes: Most bytes that the store of this encoder and these layers may take.

    Raises:
        StateCacheError: The store cannot be opened.
    """

    def __init__(self, encoder: Encoder, layers: Sequence[int], folder: Path, max_bytes: int):
        super().__init__(encoder, layers)
        self.path = folder / self._name()
        self._max_bytes = max(max_bytes, _MIN_BYTES)
        self._writing = self._reading = True
        try:
            with self._lock():
                shutil.rmtree(self._old, ignore_errors=True)  # of a process that died while it emptied the store
                self._store = self._open()
        except _failures() as error:
            raise StateCacheError(f"the store in {self.path} cannot be opened ({error})") from error

    def __enter__(self) -> StateCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is pending and closes the store."""
        self._store.close()

    def make_room(self, rows: Sequence[Sequence[int]]) -> None:
        """Makes sure that the states of these texts fit, emptying a store that is full of others.

        Args:
            rows: Token ids of each text.

        Raises:
            StateCacheError: They do not fit `max_bytes`, or need more than half of the free disk.
        """
        all_bytes = self._bytes(sum(map(len, rows)))
        if all_bytes > self._max_bytes:
            raise StateCacheError(
                f"they need {all_bytes / 1e9:.1f} GB of at most {self._max_bytes / 1e9:.1f} (encoder.cache_gb)"
            )
        try:
            with self._store.begin() as transaction:
                more = self._bytes(sum(len(row) for row in rows if transaction.get(_key(row)) is None))
            free = shutil.disk_usage(self.path).free
            if more > free // 2:
                raise StateCacheError(f"they need {more / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free")
            if _used(self._store) + more > self._max_bytes:
                logger.warning("The store of encoder states in %s was full of other texts, and is emptied.", self.path)
                self._begin_anew()
        except _failures() as error:
            raise StateCacheError(f"the store in {self.path} cannot be used ({error})") from error

    def _read(self, keys: list[bytes]) -> list[Tensor | None]:
        if not self._reading:
            return [None] * len(keys)
        width = len(self.layers), self.encoder.hidden_size
        try:
            with self._store.begin(buffers=True) as transaction:
                return [None if (block := transaction.get(key)) is None else _unpack(block, *width) for key in keys]
        except _failures() as error:
            self._reading = self._writing = False
            logger.warning("Encoder states are computed each time: %s cannot be read (%s).", self.path, error)
            return [None] * len(keys)

    def _write(self, found: dict[bytes, Tensor]) -> None:
        if not self._writing:
            return
        try:
            with self._store.begin(write=True) as transaction:
                for key, states in found.items():
                    transaction.put(key, _pack(states))
        except _failures() as error:
            self._writing = False
            logger.warning("No more encoder states are kept in %s (%s).", self.path, error)

    def _open(self) -> Any:
        """The store; a new one in place of one that is no longer whole."""
        import lmdb

        try:
            return self._open_whole()
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            logger.warning("The store of encoder states in %s was damaged (%s), and is emptied.", self.path, error)
            self._set_aside()
            return self._open_whole()

    def _open_whole(self) -> Any:
        import lmdb

        self.path.mkdir(parents=True, exist_ok=True)
        store = lmdb.open(str(self.path), map_size=self._max_bytes, metasync=False, readahead=False, max_readers=512)
        store.reader_check()  # entries of processes that died keep pages from being used again
        expected, found = _used(store), (self.path / "data.mdb").stat().st_size
        if found < expected:  # LMDB itself does not look, and reading what is missing kills the process
            store.close()
            raise lmdb.CorruptedError(f"{found} of {expected} bytes are there")
        return store

    def _begin_anew(self) -> None:
        """Puts an empty store in the place of this one; a process that still has the old one open keeps it."""
        with self._lock():
            self._store.close()
            self._set_aside()
            self._store = self._open()
            shutil.rmtree(self._old, ignore_errors=True)

    def _set_aside(self) -> None:
        shutil.rmtree(self._old, ignore_errors=True)
        self.path.replace(self._old)

    @property
    def _old(self) -> Path:
        return self.path.with_name(f"{self.path.name}.old")

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS)

    def _bytes(self, num_tokens: int) -> int:
        return bytes_on_disk(num_tokens, len(self.layers), self.encoder.hidden_size)

    def _name(self) -> str:
        """One store for each encoder, dtype and choice of layers."""
        identity = self.encoder.identity
        parts = [identity.sha256, identity.architecture, str(self.encoder.dtype), self.layers, "1"]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def bytes_on_disk(num_tokens: int, num_layers: int, width: int) -> int:
    """What the states of texts with so many tokens take, of so many layers of this width."""
    return int(num_tokens * num_layers * width * 2 * _OVERHEAD)


def _failures() -> tuple[type[Exception], ...]:
    import lmdb

    return lmdb.Error, OSError


def _used(store: Any) -> int:
    """Bytes of a store's file that are in use."""
    return int(store.stat()["psize"]) * (int(store.info()["last_pgno"]) + 1)


def _key(row: Sequence[int]) -> bytes:
    return hashlib.sha256(json.dumps(list(row)).encode()).digest()


def _to_half(states: Tensor) -> Tensor:
    """float16, or bfloat16 where values exceed its range (T5-like residual sums do); float16 states as they are."""
    if states.dtype == torch.float16:  # bfloat16 would round the largest up, out of the range to which they return
        return states
    fits = bool(states.abs().max() < _FLOAT16_LIMIT)
    return states.to(torch.float16 if fits else torch.bfloat16)


def _pack(states: Tensor) -> bytes:
    kind = next(code for code, dtype in _DTYPES.items() if dtype == states.dtype)
    return bytes(states.contiguous().view(torch.uint8).numpy().tobytes()) + kind


def _unpack(block: Any, num_layers: int, width: int) -> Tensor:
    """A copy of a stored block, (T,K,D): the block itself is gone with its transaction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of memory that cannot be written
        flat = torch.frombuffer(block, dtype=_DTYPES[bytes(block[-1:])], count=(len(block) - 1) // 2)
    return flat.clone().view(-1, num_layers, width)
