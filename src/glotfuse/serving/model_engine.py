"""What both engines share: a fused model, the two threads that may touch it, and the label words asked for lately."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from glotfuse.serving.engine import SHUTTING_DOWN, ModelDescription, UnavailableError

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from glotfuse.inputs.reader import Text

_T = TypeVar("_T")
_MOST_VIEWS = 16
"""Most choices of label words and instruction that are remembered: they come from clients."""


class ModelEngine:
    """Lends the model's threads, between the batches of clients.

    Args:
        model: The fused model; nothing else may use it meanwhile.
        name: What clients call it.
        kind: `local` or `vllm`.
    """

    def __init__(self, model: FusedLM, name: str, kind: str):
        self._model = model
        self._description = ModelDescription(
            name=name,
            encoder=model.encoder.identity.name,
            lm=model.lm.identity.name,
            labels=model.labels,
            columns=model.reader.columns,
            max_length=model.reader.max_length,
            engine=kind,
        )
        self._view = lru_cache(_MOST_VIEWS)(model.with_labels)
        self._worker = ThreadPoolExecutor(1, "glotfuse-model")
        self._reader = ThreadPoolExecutor(1, "glotfuse-reader")
        self._closed = False

    @property
    def description(self) -> ModelDescription:
        """What is served."""
        return self._description

    async def on_reader(self, function: Callable[[], _T]) -> _T:
        """Runs a function that tokenizes, on the one thread for it: tokenizers are not made for several threads."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader, function)

    async def on_worker(self, function: Callable[[], _T]) -> _T:
        """Runs a function that computes with the model, between two batches."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(SHUTTING_DOWN)

    def _end_threads(self) -> None:
        self._worker.shutdown()
        self._reader.shutdown()

    def _first_text(self) -> Text:
        """What an engine answers when it starts, so that the first client need not wait for it."""
        columns = self._description.columns
        return "Hello." if len(columns) == 1 else dict.fromkeys(columns, "Hello.")
