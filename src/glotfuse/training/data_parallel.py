"""Training on several processes: each runs its rows of every batch, and the gradients of the fusion add up.

DistributedDataParallel of torch does the adding; that it wraps a model of which nearly everything is frozen, and that
batches are cut into parts, needs the little that stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate.data_loader import prepare_data_loader
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from glotfuse import distributed
from glotfuse.inputs.order import LengthGroupedOrder, SharedBatches
from glotfuse.model.fused_model import FusedModel

Item = TypeVar("Item")
Result = TypeVar("Result")


def shared_loader(
    examples: Sequence[Any],
    order: LengthGroupedOrder,
    collate: Callable[[Sequence[Any]], Any],
    device: torch.device,
    **options: Any,
) -> DataLoader[Any]:
    """Loads this process's rows of the order's batches; `collate` may get none.

    Args:
        examples: The training examples.
        order: Of all processes, in batches of all processes together.
        collate: Makes a batch of examples.
        device: Where batches go.
        **options: Passed on to the loader.
    """
    batches = SharedBatches(order, distributed.rank(), distributed.world_size())
    loader: DataLoader[Any] = DataLoader(examples, batch_sampler=batches, collate_fn=collate, **options)  # type: ignore[arg-type]
    # the rows are shared already: accelerate would repeat some to make batches even
    return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True)  # type: ignore[no-any-return]


def keep_frozen_apart(model: FusedModel) -> None:
    """Only what is trained travels between processes: all of them have loaded the same backbones."""
    frozen = [name for name, weights in model.named_parameters() if not weights.requires_grad]
    buffers = [name for name, _ in model.named_buffers() if not name.startswith("fusion.")]
    ignore: Callable[..., None] = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, [*frozen, *buffers])


def wrapped(model: FusedModel) -> DistributedDataParallel:
    """A model with a sharded LM, whose frozen weights do not concern the gradients' adding up.

    accelerate refuses to wrap any model with sharded weights.
    """
    keep_frozen_apart(model)
    return DistributedDataParallel(model)


def is_sharded(model: Any) -> bool:
    """Whether the processes have to run the model equally often, for each has a share of its LM."""
    return bool(getattr(getattr(model, "lm", None), "is_sharded", False))


def most_parts(model: FusedModel, num_parts: int) -> int:
    """Forward passes of this step: this process's own, or with a sharded LM the most of all."""
    return max(distributed.gather(num_parts)) if is_sharded(model) else num_parts


def spread(model: Any, items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
    """Results on all items, of which every process did its share; with a sharded LM all run all of them together.

    Args:
        model: What works on them.
        items: The same in all processes.
        work: Gives a result for each of the items that it gets, which may be none.
    """
    return list(work(list(items))) if is_sharded(model) else distributed.spread(items, work)


def stay_on(args: Any, device: torch.device) -> None:
    """Has transformers and accelerate compute where the model is, `cuda:1` say: by themselves they take `cuda:0`.

    Args:
        args: Training arguments, whose device was looked up.
        device: The model's.
    """
    args.__dict__["_setup_devices"] = device  # what `args.device` remembers
    args.distributed_state.device = device  # shared by all of accelerate
    if device.index is not None:
        torch.cuda.set_device(device)
