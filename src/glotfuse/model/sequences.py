"""Rows of embeddings that the LM reads, packed without gaps.

Shapes: B batch, M positions, H LM width, C head tokens, W nodes of a tree of answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.inputs.padding import IGNORED


class Sequences(NamedTuple):
    """What the LM reads after the prompt head."""

    embeddings: Tensor
    """(B,M,H)."""
    mask: Tensor
    """(B,M), true for real positions."""
    targets: Tensor
    """(B,M): the answer token at its own position, -100 elsewhere."""

    @property
    def lengths(self) -> Tensor:
        """Real positions per row, (B,)."""
        return self.mask.sum(1)

    def next_targets(self) -> Tensor:
        """(B,M): the answer token that each position has to predict, -100 where there is none."""
        return F.pad(self.targets[:, 1:], (0, 1), value=IGNORED)

    def last(self) -> Tensor:
        """(B,M), true at each row's last real position (of right-padded rows)."""
        positions = torch.arange(self.mask.shape[1], device=self.mask.device)
        return positions == self.lengths.unsqueeze(1) - 1

    def append(self, embeddings: Tensor, ids: Tensor) -> Sequences:
        """The rows followed by answer tokens ids (B,A) with embeddings (B,A,H), right-padded."""
        return pad_right(
            torch.cat([self.embeddings, embeddings.to(self.embeddings.dtype)], dim=1),
            torch.cat([self.mask, ids != IGNORED], dim=1),
            torch.cat([self.targets, ids], dim=1),
        )


def pad_right(embeddings: Tensor, mask: Tensor, targets: Tensor) -> Sequences:
    """Moves each row's real positions to the front, keeping their order, and drops common padding."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return _take(embeddings, mask, targets, order)


def with_heads(sequences: Sequences, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> Sequences:
    """The rows with prompt heads in front: ids (B,C), padded with -100, through the LM's embedding."""
    heads = embed(ids.clamp_min(0)).to(sequences.embeddings.dtype)
    return pad_right(
        torch.cat([heads, sequences.embeddings], dim=1),
        torch.cat([ids != IGNORED, sequences.mask], dim=1),
        F.pad(sequences.targets, (ids.shape[1], 0), value=IGNORED),
    )


def own_or_shared(ids: Tensor, shared: Tensor) -> Tensor:
    """Prompt heads (B,C), padded with -100, where rows without one get the shared head (K,)."""
    ids = F.pad(ids, (0, max(0, len(shared) - ids.shape[1])), value=IGNORED)
    missing = (ids == IGNORED).all(1, keepdim=True)
    return torch.where(missing, F.pad(shared, (0, ids.shape[1] - len(shared)), value=IGNORED), ids)


def pad_left(sequences: Sequences) -> Sequences:
    """Moves each row's real positions to the end, keeping their order."""
    order = sequences.mask.to(torch.uint8).argsort(dim=1, stable=True)
    return _take(*sequences, order)


def _take(embeddings: Tensor, mask: Tensor, targets: Tensor, order: Tensor) -> Sequences:
    return Sequences(
        embeddings.take_along_dim(order.unsqueeze(-1), dim=1),
        mask.take_along_dim(order, dim=1),
        targets.take_along_dim(order, dim=1),
    )


def tree_mask(real: Tensor, among: Tensor, num_head: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, (B,1,M+W,C+M+W): rows are causal, nodes see their row and their ancestors.

    Args:
        real: (B,M), true for real positions.
        among: (B,W,W), which nodes each node sees.
        num_head: C.
        dtype: Of the result.
    """
    device, (batch_size, num_positions) = real.device, real.shape
    num_nodes = among.shape[-1]
    causal = torch.ones(num_positions, num_positions, dtype=torch.bool, device=device).tril()
    rows = F.pad(causal, (num_head, 0), value=True)
    rows = F.pad(rows, (0, num_nodes), value=False).expand(batch_size, -1, -1)
    before = F.pad(real, (num_head, 0), value=True).unsqueeze(1).expand(-1, num_nodes, -1)
    hidden = ~torch.cat([rows, torch.cat([before, among], dim=2)], dim=1)
    return hidden.to(dtype).masked_fill(hidden, torch.finfo(dtype).min).unsqueeze(1)
