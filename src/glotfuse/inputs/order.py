"""Which examples are run together, and in which order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

CPU_TOKENS = 512
"""Most tokens of text per forward pass on a CPU: more do not fit its caches, take longer per text and more memory."""
_POOL = 16  # batches that are sorted by length together


class LengthGroupedOrder(Sampler[int]):
    """An order of examples in which consecutive batches hold examples of similar length.

    Shuffled by seed and epoch, cut into pools of batches, sorted by length within each pool, and the batches
    shuffled again; a last, smaller batch stays last.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples per batch.
        seed: Of the order.
        on_epoch: Told of the epoch whose order is given next, for examples that change from epoch to epoch.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, *, on_epoch: Callable[[int], None] | None = None
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._on_epoch = on_epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order is given next; accelerate calls it."""
        self.epoch = epoch
        if self._on_epoch is not None:
            self._on_epoch(epoch)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        generator.shuffle(order)
        size = self.batch_size
        whole = len(order) // size * size
        pools = [order[i : min(i + size * _POOL, whole)] for i in range(0, whole, size * _POOL)]
        batches = []
        for pool in pools:
            pool.sort(key=lambda i: self.lengths[i])
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        generator.shuffle(batches)
        yield from (i for batch in [*batches, order[whole:]] for i in batch)


class SharedBatches(Sampler[list[int]]):
    """This process's rows of every batch of an order that all processes know.

    Rows are dealt out like cards, so that every process gets rows of every length and the processes' rows together are
    the batch that one process would run. Of a last batch with fewer rows than processes some get none, an empty list:
    no row is repeated, which would change the loss.

    Args:
        order: Of the examples, in batches of all processes together.
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    def __init__(self, order: LengthGroupedOrder, rank: int, world_size: int):
        self.order = order
        self.rank = rank
        self.world_size = world_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order is given next; accelerate calls it."""
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.order.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows, size = list(self.order), self.order.batch_size
        for start in range(0, len(rows), size):
            yield rows[start : start + size][self.rank :: self.world_size]


def inference_batches(lengths: Sequence[int], batch_size: int, device: torch.device) -> Iterator[list[int]]:
    """Indices of examples that are run together: of similar length, the longest first.

    Args:
        lengths: Tokens of each example.
        batch_size: Most examples per batch.
        device: Where they are run; on a CPU a batch also has a limit of tokens, padding included.
    """
    yield from groups_within(lengths, CPU_TOKENS if device.type == "cpu" else None, batch_size)


def groups_within(lengths: Sequence[int], max_tokens: int | None, most: int) -> Iterator[list[int]]:
    """Cuts examples into groups of similar length, the longest first.

    Args:
        lengths: Tokens of each example.
        max_tokens: Most tokens of a group, padding to its longest included; a longer example is a group of its own.
        most: Most examples of a group.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])

    def fitting(start: int) -> int:
        return min(most, max(1, max_tokens // max(1, lengths[order[start]])) if max_tokens else most)

    sizes, start = [], 0
    while start < len(order):
        sizes.append(min(fitting(start), len(order) - start))
        start += sizes[-1]
    if sizes:  # as many groups of equal size run faster, where those fit too
        even = math.ceil(len(order) / len(sizes))
        if all(even <= fitting(start) for start in range(0, len(order), even)):
            sizes = [even] * len(sizes)
    start = 0
    for size in sizes:
        if order[start : start + size]:
            yield order[start : start + size]
        start += size
