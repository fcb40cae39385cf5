"""Rows of token ids as one tensor.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Target of positions without loss."""


def pad_rows(rows: Sequence[list[int]]) -> Tensor:
    """Token ids of B rows as one (B,longest), padded at the right with -100."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=IGNORED)


def pad_and_mask(rows: Sequence[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids of B rows, padded with a token of the model, and the mask of real tokens, both (B,longest)."""
    ids = pad_rows(rows)
    mask = ids != IGNORED
    return ids.masked_fill(~mask, pad_token_id), mask
