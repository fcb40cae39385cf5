"""Keys and values of a constant prefix, computed once and shared by every batch.

Shapes: C prefix tokens, B batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glotfuse.errors import BackboneError


class PrefixCache:
    """The keys and values of C prefix tokens for every attention layer, without gradient.

    Args:
        layers: One (keys, values) pair per layer, each (1, heads, C, head width).
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]]):
        self.layers = layers

    @property
    def length(self) -> int:
        """C."""
        return int(self.layers[0][0].shape[-2])

    @classmethod
    @torch.no_grad()
    def compute(cls, model: Any, prefix_embeds: Tensor) -> PrefixCache:
        """Runs `model` over prefix embeddings (1,C,H).

        Raises:
            BackboneError: The model keeps something else than keys and values per layer (recurrent states).
        """
        from transformers import DynamicCache

        length = prefix_embeds.shape[1]
        cache = DynamicCache()  # without config: every layer keeps all C positions, sliding windows too
        positions = torch.arange(length, device=prefix_embeds.device).unsqueeze(0)
        model(
            inputs_embeds=prefix_embeds,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        layers = []
        for layer in cache.layers:
            keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
            if keys is None or values is None or keys.shape[-2] != length:
                raise BackboneError(
                    f"Expected keys and values of {length} positions in every layer of {type(model).__name__}; "
                    f"found {type(layer).__name__} without them. The prompt head is recomputed instead."
                )
            layers.append((keys.detach(), values.detach()))
        if not layers:
            raise BackboneError(f"{type(model).__name__} filled no key-value cache.")
        return cls(layers)

    def expand(self, batch_size: int) -> Any:
        """A cache for one batch of B rows: views of the prefix that the batch's own keys are appended to."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            shape = (batch_size, -1, -1, -1)
            cache.update(keys.expand(shape), values.expand(shape), index)
        return cache
