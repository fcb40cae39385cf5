"""Dynamic batching: requests that arrive together are run together, on one worker thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from glotfuse.serving.engine import SHUTTING_DOWN, OverloadedError, UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_SECONDS = 60
"""Longest wait that a refused client is told."""


@dataclass(frozen=True)
class BatchLimits:
    """How requests are gathered."""

    max_batch_size: int = 16
    """Most items that are run together."""
    max_wait_ms: float = 5.0
    """How long the first item of a batch waits for more, while the worker is free."""
    queue_size: int = 128
    """Most items that wait; a request of more is taken when none waits."""


@dataclass
class _Entry(Generic[Item, Result]):
    item: Item
    key: Hashable
    arrived: float
    result: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Gathers items into batches and runs each batch on a worker thread.

    Args:
        run: Answers a batch, one result per item in order. It runs on the worker. When it fails for several items,
            they are run again one by one, so that only those fail that cause it.
        worker: One thread where torch is used, which other batchers may share.
        limits: Of batches and queue.
        key: Items are run together only when their keys are equal.
        on_batch: Told the size of every batch, for the metrics.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        worker: Executor,
        limits: BatchLimits | None = None,
        *,
        key: Callable[[Item], Hashable] = lambda _: None,
        on_batch: Callable[[int], None] = lambda _: None,
    ):
        self._run = run
        self._worker = worker
        self._limits = limits or BatchLimits()
        self._key = key
        self._on_batch = on_batch
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._room = QueueRoom(self._limits)

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Runs items, in batches with those of others; cancelling takes those that wait out of the queue.

        Raises:
            OverloadedError: The queue is full; none of the items was taken.
            UnavailableError: The batcher is closed.
            Exception: What `run` raised for one of the items.
        """
        if self._closed:
            raise UnavailableError(SHUTTING_DOWN)
        self.check_room(len(items))
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._serve())
        now = time.monotonic()
        entries = [_Entry(item, self._key(item), now, loop.create_future()) for item in items]
        self._waiting.extend(entries)
        self._arrived.set()
        try:
            results: list[Result] = await asyncio.gather(*(entry.result for entry in entries))
            return results
        finally:
            if any(not entry.result.done() or entry.result.cancelled() for entry in entries):
                gone = {id(entry) for entry in entries}
                self._waiting = deque(entry for entry in self._waiting if id(entry) not in gone)
            for entry in entries:
                entry.result.cancel()

    async def close(self) -> None:
        """Takes no more items; those that wait get an `UnavailableError`, those that run are finished."""
        self._closed = True
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.result.done():
                entry.result.set_exception(UnavailableError("The server has shut down before it could answer."))
        if self._task is not None:
            self._arrived.set()
            await self._task

    def check_room(self, more: int) -> None:
        """Whether so many more items would be taken now.

        Raises:
            OverloadedError: They would not.
        """
        self._room.check(len(self._waiting), more)

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                if self._closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            await for_company(self._arrived, self._limits, self._oldest, self._num_alike)
            batch = self._take()
            if batch:
                await self._answer(batch)

    def _oldest(self) -> float | None:
        return self._waiting[0].arrived if self._waiting and not self._closed else None

    def _num_alike(self) -> int:
        return sum(entry.key == self._waiting[0].key for entry in self._waiting)

    def _take(self) -> list[_Entry[Item, Result]]:
        """The oldest items that may run together; the others keep their places."""
        batch: list[_Entry[Item, Result]] = []
        rest: deque[_Entry[Item, Result]] = deque()
        for entry in self._waiting:
            fits = len(batch) < self._limits.max_batch_size and (not batch or entry.key == batch[0].key)
            (batch if fits else rest).append(entry)
        self._waiting = rest
        return batch

    async def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        self._on_batch(len(batch))
        try:
            results = await loop.run_in_executor(self._worker, self._run, [entry.item for entry in batch])
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].result.done():
                    batch[0].result.set_exception(error)
                return
            for entry in batch:
                if not entry.result.done():
                    await self._answer([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            if not entry.result.done():
                entry.result.set_result(result)
        self._room.took(time.monotonic() - begun)


class QueueRoom:
    """Refuses what a queue has no room for, and tells when to ask again.

    Args:
        limits: Of the queue and of what runs at once.
        seconds: That a batch, or an answer, takes, until one was timed.
    """

    def __init__(self, limits: BatchLimits, seconds: float = 0.0):
        self._limits = limits
        self._seconds = seconds

    def check(self, waiting: int, more: int = 1) -> None:
        """Whether so many more are taken while others wait.

        Raises:
            OverloadedError: They are not.
        """
        if waiting and waiting + more > self._limits.queue_size:
            needed = math.ceil(self._seconds * waiting / self._limits.max_batch_size)
            seconds = min(max(1, needed), _MOST_SECONDS)
            raise OverloadedError(
                f"Expected room for {more} more in the queue of {self._limits.queue_size}; {waiting} are waiting. "
                f"Ask again in {seconds} s.",
                seconds,
            )

    def took(self, seconds: float) -> None:
        """Takes note of how long a batch, or an answer, took."""
        self._seconds = seconds if not self._seconds else 0.8 * self._seconds + 0.2 * seconds


async def for_company(
    changed: asyncio.Event, limits: BatchLimits, oldest: Callable[[], float | None], size: Callable[[], int]
) -> None:
    """Waits until a batch is full or its first item has waited long enough.

    Args:
        changed: Set when the queue changes.
        limits: Of a batch and of the wait.
        oldest: When the first item arrived (monotonic time); None ends the wait.
        size: Items that could run together now.
    """
    while (arrived := oldest()) is not None:
        left = arrived + limits.max_wait_ms / 1000 - time.monotonic()
        if left <= 0 or size() >= limits.max_batch_size:
            return
        changed.clear()
        try:
            await asyncio.wait_for(changed.wait(), left)
        except TimeoutError:
            return
