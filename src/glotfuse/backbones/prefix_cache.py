"""Keys and values of a constant prefix, computed once and shared by every batch.

Shapes: C prefix tokens, B batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from glotfuse.errors import BackboneError

_MOST_HEADS = 16


class PrefixCache:
    """The keys and values of C prefix tokens for every attention layer, without gradient.

    Args:
        layers: One (keys, values) pair per layer, each (1, heads, C, head width); empty without prefix tokens.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]]):
        self.layers = layers

    @property
    def length(self) -> int:
        """C."""
        return int(self.layers[0][0].shape[-2]) if self.layers else 0

    @classmethod
    @torch.no_grad()
    def compute(cls, run: Callable[..., Tensor], prefix_embeds: Tensor) -> PrefixCache:
        """Runs an LM over prefix embeddings (1,C,H); `run` is its `LM.run`.

        Raises:
            BackboneError: It keeps something else than keys and values per layer (recurrent states).
        """
        from transformers import DynamicCache

        length = prefix_embeds.shape[1]
        cache = DynamicCache()  # without config: every layer keeps all C positions, sliding windows too
        last = torch.arange(length, device=prefix_embeds.device).unsqueeze(0) == length - 1
        run(prefix_embeds, last, cache=cache)
        layers = []
        for layer in cache.layers:
            keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
            if keys is None or values is None or keys.shape[-2] != length:
                raise BackboneError(
                    f"Expected keys and values of {length} positions in every layer; "
                    f"found {type(layer).__name__} without them."
                )
            layers.append((keys.detach(), values.detach()))
        if not layers:
            raise BackboneError("Expected the LM to fill a key-value cache; found it empty.")
        return cls(layers)

    def expand(self, batch_size: int) -> Any:
        """A cache for one batch of B rows, to which the batch's own keys and values are appended."""
        shape = (batch_size, -1, -1, -1)
        return _filled([(keys.expand(shape), values.expand(shape)) for keys, values in self.layers])


class _Caching(Protocol):
    """An LM, as far as it is needed here."""

    @property
    def device(self) -> torch.device: ...
    @property
    def working_dtype(self) -> torch.dtype: ...
    def cache_prefix(self, prefix_ids: list[int]) -> PrefixCache | None: ...


class HeadCaches(OrderedDict[tuple[Any, ...], PrefixCache | None]):
    """Prompt heads by tokens, device and dtype, the last used ones: a server's clients bring instructions of theirs."""

    def of(self, lm: _Caching, head_ids: tuple[int, ...]) -> PrefixCache | None:
        """Keys and values of a head in one LM; None where they cannot be reused."""
        key = (head_ids, lm.device, lm.working_dtype)
        if key not in self:
            self[key] = lm.cache_prefix(list(head_ids))
            while len(self) > _MOST_HEADS:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


def continued(cache: Any, order: Tensor, repeats: int) -> Any:
    """A copy of a batch's cache with its positions in another order and each row repeated.

    Args:
        cache: Of B rows; it stays as it is.
        order: (B,S), per row the cached positions in their new order.
        repeats: How often each row appears, one copy after the other.
    """
    index = order[:, None, :, None]  # (B,1,S,1): the same for all heads
    return _filled(
        [
            tuple(x.take_along_dim(index, dim=2).repeat_interleave(repeats, dim=0) for x in (layer.keys, layer.values))
            for layer in cache.layers
        ]
    )


def _filled(layers: Iterable[tuple[Tensor, ...]]) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache
