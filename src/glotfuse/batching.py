"""The order in which training examples come."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

_POOL = 16  # batches that are sorted by length together


class LengthGroupedOrder(Sampler[int]):
    """An order of examples in which consecutive batches hold examples of similar length.

    Shuffled by seed and epoch, cut into pools of batches, sorted by length within each pool, and the batches
    shuffled again; a last, smaller batch stays last.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples per batch.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order is given next; accelerate calls it."""
        self.epoch = epoch

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
