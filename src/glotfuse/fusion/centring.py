"""Encoder states without what all of them have in common.

In contextual encoders all states of a layer share a large constant part, above all in the last layer; what differs
between tokens is a small rest (Ethayarajh 2019, arXiv 1909.00512). Taking the mean away before any further use is the
first step of Mu and Viswanath 2018 (arXiv 1702.01417). Mean and scale come from the training texts alone, as the
encoder reads them: English, or views of it with foreign words.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Centring(nn.Module):
    """Takes a layer's mean state away and brings the rest to a root mean square of one.

    Before `set` is called it changes nothing. The figures are buffers, saved with the trained weights.

    Args:
        num_layers: L.
        hidden_size: D.
    """

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(num_layers, hidden_size))
        self.register_buffer("scale", torch.ones(num_layers))

    def forward(self, states: Tensor, layer: int) -> Tensor:
        """One layer's states (B,T,D), centred."""
        return (states - self.mean[layer].to(states.dtype)) / self.scale[layer].to(states.dtype)

    @torch.no_grad()
    def set(self, layer: int, mean: Tensor, scale: float) -> None:
        """Takes over a layer's mean state (D,) and the root mean square of what is left."""
        self.mean[layer] = mean.to(self.mean)
        self.scale[layer] = max(scale, torch.finfo(self.scale.dtype).tiny)
