"""Rows of embeddings that the LM reads, packed without gaps.

Shapes: B batch, M positions, H LM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Target of positions without loss."""


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
        """The same rows followed by answer tokens ids (B,A) with embeddings (B,A,H), right-padded."""
        return pad_right(
            torch.cat([self.embeddings, embeddings.to(self.embeddings.dtype)], dim=1),
            torch.cat([self.mask, ids != IGNORED], dim=1),
            torch.cat([self.targets, ids], dim=1),
        )


def pad_rows(rows: Sequence[list[int]]) -> Tensor:
    """Token ids of B rows as one (B,longest), padded at the right with -100."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=IGNORED)


def pad_and_mask(rows: Sequence[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """The same padded with a token of the model, and the mask of real tokens."""
    ids = pad_rows(rows)
    mask = ids != IGNORED
    return ids.masked_fill(~mask, pad_token_id), mask


def pad_right(embeddings: Tensor, mask: Tensor, targets: Tensor) -> Sequences:
    """Moves each row's real positions to the front, keeping their order, and drops common padding."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return _take(embeddings, mask, targets, order)


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
