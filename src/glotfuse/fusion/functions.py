"""Autograd functions that spare memory: the same values and gradients as the plain expression, without its temporaries.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width, N heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def weighted_sum(hidden_states: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sums L tensors (B,T,D) with weights (L,) or (B,T,L), without a temporary per layer."""
    result: Tensor = _WeightedSum.apply(weights, *hidden_states)  # type: ignore[no-untyped-call]
    return result


class _WeightedSum(torch.autograd.Function):
    """Adds up in place, and multiplies gradients with states token by token: no tensor (B,T,D) per layer is made."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *states: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *states)
        total = torch.zeros_like(states[0], memory_format=torch.contiguous_format)
        for layer, x in enumerate(states):
            total.addcmul_(x, weights[..., layer, None].to(x.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *states = ctx.saved_tensors
        wanted, *wanted_states = ctx.needs_input_grad
        grad_weights = None
        if wanted:
            per_token = torch.stack([torch.einsum("...d,...d->...", grad, x) for x in states], dim=-1)
            grad_weights = (per_token if weights.dim() > 1 else per_token.flatten(0, -2).sum(0)).to(weights.dtype)
        grad_states = [
            grad * weights[..., layer, None].to(grad.dtype) if asked else None
            for layer, asked in enumerate(wanted_states)
        ]
        return grad_weights, *grad_states


def constant_query(weight: Tensor, bias: Tensor, source: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Attention's input projections where one constant is the query of all tokens.

    Args:
        weight: (3D,D), the projections of queries, keys and values, as in `nn.MultiheadAttention`.
        bias: (3D,).
        source: (D,), what the query is made from.
        num_heads: N.

    Returns:
        The query through the key projection, (N,D), whose product with a state is that state's score before scaling;
        and the value projection, (N,D/N,D).
    """
    found: tuple[Tensor, Tensor] = _ConstantQuery.apply(  # type: ignore[no-untyped-call]
        weight, bias, source, num_heads
    )
    return found


class _ConstantQuery(torch.autograd.Function):
    """Writes the three gradients into one tensor; the gradients of queries and keys are products of two vectors."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, source: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
        width = len(source)
        ctx.shape = (3, num_heads, width // num_heads, width)
        w_query, w_key, w_value = weight.view(ctx.shape)
        with torch.autocast(weight.device.type, enabled=False):
            query = torch.einsum("nkd,d->nk", w_query, source) + bias[:width].view(num_heads, -1)
            folded = torch.einsum("nk,nkd->nd", query, w_key)
        ctx.save_for_backward(weight, source, query)
        return folded, w_value

    @staticmethod
    def backward(ctx: Any, grad_folded: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        weight, source, query = ctx.saved_tensors
        w_query, w_key, _ = weight.view(ctx.shape)
        grad_query = torch.einsum("nd,nkd->nk", grad_folded, w_key)
        grad_weight = torch.empty_like(weight)
        to_query, to_key, to_value = grad_weight.view(ctx.shape)
        torch.mul(grad_query.unsqueeze(-1), source, out=to_query)
        torch.mul(query.unsqueeze(-1), grad_folded.unsqueeze(1), out=to_key)
        to_value.copy_(grad_value)
        grad_bias = torch.cat([grad_query.flatten(), grad_query.new_zeros(2 * len(source))])
        return grad_weight, grad_bias, torch.einsum("nk,nkd->d", grad_query, w_query), None
