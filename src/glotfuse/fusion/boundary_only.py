"""A fusion that reads nothing of the encoder, for comparison: the LM alone with the trained boundary, or without.

Shapes: B batch, H LM width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glotfuse.fusion.module import Span


class BoundaryOnly(nn.Module):
    """Stands where a `Fusion` would when the LM is to read the plain text itself.

    Args:
        lm_size: H.
        trained: Whether a learned vector stands before the text; without it nothing is trained.
    """

    reads_encoder = False

    def __init__(self, lm_size: int, *, trained: bool = True):
        super().__init__()
        self.lm_size = lm_size
        self.boundary = nn.Parameter(torch.zeros(lm_size)) if trained else None

    def forward(self, mask: Tensor) -> Span:
        """Makes the span of B texts with encoder mask (B,T): the boundary (B,1,H), or no position at all."""
        size, device = len(mask), mask.device
        weights = torch.zeros(0, device=device)
        if self.boundary is None:
            nothing = torch.zeros(size, 0, self.lm_size, device=device)
            return Span(nothing, torch.zeros(size, 0, dtype=torch.bool, device=device), weights)
        ones = torch.ones(size, 1, dtype=torch.bool, device=device)
        return Span(self.boundary.expand(size, 1, -1), ones, weights)
