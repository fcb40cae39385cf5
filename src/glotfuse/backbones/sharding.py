"""A frozen LM whose layers are split over several processes: each keeps a share and fetches the rest layer by layer.

This is FSDP2 (`fully_shard` of torch) for weights that get no gradient: nothing is added up between processes, only
gathered, so the processes have to run the LM equally often. Embeddings and output layer stay whole, for they are also
used outside the LM's own forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from glotfuse import distributed
from glotfuse.errors import BackboneError


def shard_layers(model: nn.Module, device: torch.device) -> int:
    """Splits the layers' weights over all processes, in place.

    Args:
        model: An LM of transformers.
        device: Where its weights are.

    Returns:
        Number of layers.

    Raises:
        BackboneError: The family does not mark its layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BackboneError(
            f"Expected layers that can be split over processes; found none in {type(model).__name__}. "
            "Set lm.sharded to false."
        )
    mesh: Any = init_device_mesh(device.type, (distributed.world_size(),))
    inside = {weights for layer in layers for weights in layer.parameters()}
    outside = {weights for weights in model.parameters() if weights not in inside}
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=outside)  # fetches the next layer while one runs
    return len(layers)
