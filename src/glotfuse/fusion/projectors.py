"""Projectors: from mixed encoder states to the LM's input width.

Shapes: B batch, T encoder tokens, S span positions (T, or a fixed number of latents), D encoder width, H LM
width. A projector reads mixed states (B,T,D) and a mask (B,T), and returns (B,S,H) with the number of valid
positions per row, (B,). Valid positions come first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glotfuse.errors import ConfigError
from glotfuse.fusion.registry import Registry


class Projected(NamedTuple):
    """What a projector returns."""

    embeddings: Tensor
    """(B,S,H)."""
    lengths: Tensor
    """Valid positions per row, (B,)."""


class Projector(nn.Module, ABC):
    """Base of all projectors.

    Args:
        encoder_size: D, the width of the mixed states.
        lm_size: H.
    """

    def __init__(self, encoder_size: int, lm_size: int):
        super().__init__()
        self.encoder_size = encoder_size
        self.lm_size = lm_size

    @abstractmethod
    def forward(self, mixed: Tensor, mask: Tensor) -> Projected:
        """Maps (B,T,D) under a boolean mask (B,T)."""

    def start_from(self, weight: Tensor, bias: Tensor, moments: Tensor) -> bool:
        """Takes over a linear map as its own start; False, where it cannot.

        Args:
            weight: (H,D).
            bias: (H,).
            moments: (D,D), second moments of the states, by which a map of lower rank is chosen.
        """
        return False


PROJECTORS: Registry[Projector] = Registry("projector", ("encoder_size", "lm_size"))
register_projector = PROJECTORS.register


@register_projector("linear")
class LinearProjector(Projector):
    """One linear map with bias (the paper's)."""

    def __init__(self, encoder_size: int, lm_size: int):
        super().__init__(encoder_size, lm_size)
        self.map = nn.Linear(encoder_size, lm_size)

    def forward(self, mixed: Tensor, mask: Tensor) -> Projected:
        """See `Projector.forward`."""
        return Projected(self.map(mixed), mask.sum(1))

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor, moments: Tensor) -> bool:
        """See `Projector.start_from`."""
        self.map.weight.copy_(weight)
        self.map.bias.copy_(bias)
        return True


@register_projector("mlp")
class MLPProjector(Projector):
    """Two linear maps with a GELU between them.

    Args:
        encoder_size: D.
        lm_size: H.
        inner_size: Width between the maps; None takes H.
    """

    def __init__(self, encoder_size: int, lm_size: int, inner_size: int | None = None):
        super().__init__(encoder_size, lm_size)
        inner = lm_size if inner_size is None else inner_size
        if inner < 1:
            raise ConfigError(f"Expected inner_size of at least 1; found {inner}.")
        self.map = nn.Sequential(nn.Linear(encoder_size, inner), nn.GELU(), nn.Linear(inner, lm_size))

    def forward(self, mixed: Tensor, mask: Tensor) -> Projected:
        """See `Projector.forward`."""
        return Projected(self.map(mixed), mask.sum(1))


@register_projector("perceiver")
class PerceiverProjector(Projector):
    """A fixed number of latents that read the tokens by cross-attention.

    Source: Jaegle et al. 2021, arXiv 2103.03206.

    Args:
        encoder_size: D.
        lm_size: H.
        num_latents: S, the span's length whatever the text's.
        num_heads: Attention heads, a divisor of D.
    """

    def __init__(self, encoder_size: int, lm_size: int, num_latents: int = 32, num_heads: int = 4):
        super().__init__(encoder_size, lm_size)
        if num_latents < 1:
            raise ConfigError(f"Expected num_latents of at least 1; found {num_latents}.")
        if num_heads < 1 or encoder_size % num_heads:
            raise ConfigError(f"Expected num_heads to divide the encoder width {encoder_size}; found {num_heads}.")
        self.latents = nn.Parameter(torch.randn(num_latents, encoder_size) * 0.02)
        self.norm_input = nn.LayerNorm(encoder_size)
        self.attention = nn.MultiheadAttention(encoder_size, num_heads, batch_first=True)
        self.norm_latents = nn.LayerNorm(encoder_size)
        self.feedforward = nn.Sequential(
            nn.Linear(encoder_size, 4 * encoder_size), nn.GELU(), nn.Linear(4 * encoder_size, encoder_size)
        )
        self.map = nn.Linear(encoder_size, lm_size)

    def forward(self, mixed: Tensor, mask: Tensor) -> Projected:
        """See `Projector.forward`; every row has `num_latents` valid positions."""
        batch_size = mixed.shape[0]
        latents = self.latents.expand(batch_size, -1, -1)
        keys = self.norm_input(mixed)
        attended, _ = self.attention(latents, keys, keys, key_padding_mask=~mask, need_weights=False)
        latents = latents + attended
        latents = latents + self.feedforward(self.norm_latents(latents))
        lengths = mask.new_full((batch_size,), latents.shape[1], dtype=torch.long)
        return Projected(self.map(latents), lengths)
