"""Several processes that train and measure one run together; in a process that is alone all of this does nothing.

`torchrun` or `accelerate launch` starts the processes and tells each its number in the environment; `start` joins them
to a group of torch.distributed through accelerate (gloo on CPUs, NCCL on CUDA). The first process alone prints, and
alone writes what a run leaves behind.

Nothing here imports torch before `start` does: a process whose torch is not there has no group.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar

from glotfuse.errors import ConfigError, GlotfuseError

Item = TypeVar("Item")
Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another one: longer than the slowest step that only one of them does."""
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MISSING = object()


def launched() -> bool:
    """Whether a launcher started several processes, this one among them; known before `start`."""
    return all(name in os.environ for name in _LAUNCHER) and int(os.environ["WORLD_SIZE"]) > 1


def is_silent() -> bool:
    """Whether another process prints; known before `start`."""
    return launched() and os.environ["RANK"] != "0"


def start(*, cpu: bool) -> None:
    """Joins the processes of a launcher to one group; without a launcher, or a second time, it does nothing.

    Args:
        cpu: Whether they work on CPUs. On CUDA each gets the device of its number on the machine.

    Raises:
        ConfigError: The machine's accelerator cannot be shared out.
    """
    if not launched() or _group() is not None:
        return
    from accelerate import PartialState

    PartialState(cpu=cpu, timeout=TIMEOUT)
    if _group() is None:
        raise ConfigError(
            "Expected processes on CPUs or CUDA devices; found a device on which torch.distributed has no group. "
            "Set device: cpu in the recipe, or start one process."
        )


def stop() -> None:
    """Ends the group, so that no process waits for one that has ended."""
    group = _group()
    if group is not None:
        group.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def rank() -> int:
    """Number of this process, from 0."""
    group = _group()
    return int(group.get_rank()) if group else 0


def is_main() -> bool:
    """Whether this is the first process, which prints and writes."""
    return rank() == 0


def is_local_main() -> bool:
    """Whether this is the first process of its machine, which keeps its caches in order."""
    return _group() is None or os.environ.get("LOCAL_RANK", "0") == "0"


def barrier() -> None:
    """Waits until all processes are here."""
    gather(None)


def gather(value: Item) -> list[Item]:
    """The values of all processes, in the order of their numbers, in each of them."""
    group = _group()
    if group is None:
        return [value]
    values: list[Any] = [None] * world_size()
    group.all_gather_object(values, value)
    return values


def any_of(value: bool) -> bool:
    """Whether the value is true in some process."""
    return any(gather(value))


def once(work: Callable[[], Result]) -> Result:
    """The result of work that the first process alone does; a `GlotfuseError` of it is raised in all of them."""
    group = _group()
    if group is None:
        return work()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except GlotfuseError as error:
            outcome[1] = error
    group.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def spread(items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
    """Results of work on all items, in their order, of which every process did its share.

    Args:
        items: The same in all processes.
        work: Gives a result for each of the items that it gets, which may be none.
    """
    parts = gather(list(work(own_part(items))))
    return [result for result in chain.from_iterable(zip_longest(*parts, fillvalue=_MISSING)) if result is not _MISSING]  # type: ignore[misc]


def own_part(items: Sequence[Item]) -> list[Item]:
    """This process's share: like cards dealt out, so that what is sorted is shared evenly."""
    return list(items[rank() :: world_size()])


def share_weights(module: Any) -> None:
    """Gives every process the first one's parameters and buffers of a module."""
    group = _group()
    if group is not None:
        for tensor in chain(module.parameters(), module.buffers()):
            group.broadcast(tensor.detach(), src=0)


def share_of_batch(batch_size: int) -> int:
    """Rows of a batch for each process.

    Raises:
        ConfigError: The rows cannot be shared evenly.
    """
    count = world_size()
    if batch_size % count:
        near = max(count, round(batch_size / count) * count)
        raise ConfigError(
            f"Expected a training.batch_size that {count} processes can share evenly, for it is that of all together; "
            f"found {batch_size}. Set it to {near}, or start another number of processes."
        )
    return batch_size // count


def _group() -> Any:
    """`torch.distributed` where a group of several processes was started, None otherwise."""
    torch = sys.modules.get("torch")
    group = getattr(torch, "distributed", None)
    if group is None or not group.is_available() or not group.is_initialized() or group.get_world_size() < 2:
        return None
    return group
