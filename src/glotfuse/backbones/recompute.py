"""Gradient checkpointing of a frozen LM: layers are computed again in the backward pass, not remembered.

transformers does this only for modules in training mode, which frozen ones never are (and which would turn on dropout
in some families); so the same layers are wrapped here, for as long as a forward pass takes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.checkpoint import checkpoint

from glotfuse.errors import BackboneError


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """The model's layers keep their inputs only. There must be no cache, which would be filled a second time.

    Raises:
        BackboneError: The family does not mark layers that can be computed again.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BackboneError(
            f"Expected layers that transformers can checkpoint; found none in {type(model).__name__}. "
            "Set training.gradient_checkpointing to false."
        )
    draws = any(module.training for module in model.modules())  # an adapter's dropout: the same again
    # an instance's own forward is a hook of accelerate's, by which a spread LM moves tensors: it has to come back
    hooked = {layer: layer.__dict__["forward"] for layer in layers if "forward" in layer.__dict__}
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=draws)
    try:
        yield
    finally:
        for layer in layers:
            if layer in hooked:
                layer.forward = hooked[layer]
            else:
                del layer.forward
