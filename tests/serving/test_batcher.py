"""Requests that arrive together run together; a full queue refuses, a cancelled request makes room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from glotfuse.errors import PromptError
from glotfuse.serving.batcher import Batcher, BatchLimits
from glotfuse.serving.engine import OverloadedError, UnavailableError


class Doubler:
    """Doubles numbers, and remembers the batches; waits at a door where there is one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.door = threading.Event()
        self.door.set()

    def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        assert self.door.wait(10)
        if 13 in batch:
            raise PromptError("Expected another number; found 13.")
        return [2 * number for number in batch]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_items_that_come_together_run_together_and_keep_their_order() -> None:
    async def work() -> None:
        doubler = Doubler()
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubler, worker, BatchLimits(max_batch_size=4, max_wait_ms=50))
            results = await asyncio.gather(batcher.submit([1, 2, 3]), batcher.submit([4]), batcher.submit([5, 6]))
            assert results == [[2, 4, 6], [8], [10, 12]]
            assert doubler.batches == [[1, 2, 3, 4], [5, 6]]
            await batcher.close()

    run(work())


def test_only_equal_keys_share_a_batch() -> None:
    async def work() -> None:
        doubler = Doubler()
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubler, worker, BatchLimits(4, 50), key=lambda number: number % 2)
            assert await batcher.submit([1, 2, 3, 4]) == [2, 4, 6, 8]
            assert doubler.batches == [[1, 3], [2, 4]]
            await batcher.close()

    run(work())


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def work() -> None:
        doubler = Doubler()
        doubler.door.clear()
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubler, worker, BatchLimits(max_batch_size=1, max_wait_ms=0, queue_size=2))
            first = asyncio.create_task(batcher.submit([1]))
            while not doubler.batches:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(batcher.submit([2, 3]))
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadedError) as caught:
                await batcher.submit([4])
            assert 1 <= caught.value.retry_after <= 60
            waiting.cancel()
            await asyncio.sleep(0.01)
            assert batcher.waiting == 0
            last = asyncio.create_task(batcher.submit([5]))
            await asyncio.sleep(0.01)
            doubler.door.set()
            assert await first == [2]
            assert await last == [10]
            assert doubler.batches == [[1], [5]]  # nothing was done for the one that was cancelled
            await batcher.close()

    run(work())


def test_a_bad_item_fails_alone() -> None:
    async def work() -> None:
        doubler = Doubler()
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubler, worker, BatchLimits(8, 50))
            good, bad = batcher.submit([1, 2]), batcher.submit([13])
            found = await asyncio.gather(good, bad, return_exceptions=True)
            assert found[0] == [2, 4]
            assert isinstance(found[1], PromptError)
            assert doubler.batches[0] == [1, 2, 13]
            await batcher.close()

    run(work())


def test_closing_ends_those_that_wait_and_finishes_what_runs() -> None:
    async def work() -> None:
        doubler = Doubler()
        doubler.door.clear()
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubler, worker, BatchLimits(1, 0))
            running, waiting = (asyncio.create_task(batcher.submit([i])) for i in (1, 2))
            while not doubler.batches:
                await asyncio.sleep(0.01)
            closing = asyncio.create_task(batcher.close())
            with pytest.raises(UnavailableError):
                await waiting
            doubler.door.set()
            await closing
            assert await running == [2]
            with pytest.raises(UnavailableError):
                await batcher.submit([3])

    run(work())
