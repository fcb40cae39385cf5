"""A mixer that is given some of the encoder's layers only.

Shapes: B batch, T encoder tokens, L encoder layers, K chosen layers, D encoder width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from glotfuse.errors import ConfigError
from glotfuse.fusion.mixers import Mixer, MixerOutput


def chosen_layers(layers: Sequence[int], num_layers: int) -> list[int]:
    """Indices from 0, ascending, of layers that may be counted from the end.

    Raises:
        ConfigError: One is named twice or not there.
    """
    found = sorted(layer + num_layers if layer < 0 else layer for layer in layers)
    if not found or len(set(found)) < len(found) or found[0] < 0 or found[-1] >= num_layers:
        raise ConfigError(
            f"Expected fusion.layers to name some of the encoder's {num_layers} layers, each once, as 0 to "
            f"{num_layers - 1} or -{num_layers} to -1; found {list(layers)}."
        )
    return found


class SomeLayers(Mixer):
    """Gives K of L layers to a mixer that was made for K; the others have weight zero.

    Args:
        inner: The mixer of K layers.
        chosen: Their indices, from 0, ascending.
        num_layers: L.
    """

    def __init__(self, inner: Mixer, chosen: Sequence[int], num_layers: int):
        super().__init__(num_layers, inner.hidden_size)
        self.inner = inner
        self._chosen = list(chosen)

    @property
    def output_size(self) -> int:
        """That of the inner mixer."""
        return self.inner.output_size

    @property
    def layers(self) -> Sequence[int]:
        """Those that the inner mixer reads, counted in the encoder."""
        return [self._chosen[layer] for layer in self.inner.layers]

    def shared_weights(self) -> Tensor | None:
        """Those of the inner mixer, (L,)."""
        weights = self.inner.shared_weights()
        return None if weights is None else self._spread(weights)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`."""
        mixed, weights = self.inner(hidden_states, mask)
        return MixerOutput(mixed, self._spread(weights))

    def _spread(self, weights: Tensor) -> Tensor:
        """From (...,K) to (...,L)."""
        spread = weights.new_zeros(*weights.shape[:-1], self.num_layers)
        spread[..., self._chosen] = weights
        return spread
