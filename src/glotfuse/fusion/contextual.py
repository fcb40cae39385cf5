"""A projector whose span vectors read each other, so that pieces of words can join and the order of words can change.

Shapes: B batch, T encoder tokens, G latents, S = G + T span positions, D width of the mixed states, H LM width, R rank,
N heads, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.errors import ConfigError
from glotfuse.fusion.projectors import Projected, Projector, register_projector

_ROTARY_BASE = 1000.0


@register_projector("contextual")
class ContextualProjector(Projector):
    """A linear map, then attention over the span and a feed-forward network, both added to it.

    Both begin at zero, so the start is the linear map alone. Positions are rotary (Su et al. 2021, arXiv 2104.09864),
    normalisation comes first (RMS, without weights). Meant for a fusion with `match_scale`: vectors leave at a scale
    of their own.

    Args:
        encoder_size: D.
        lm_size: H.
        rank: R, of the linear map; None gives it all that it can have.
        attention_size: N*K, width of queries, keys and values; 0 leaves the attention out.
        num_heads: N, a divisor of `attention_size`; K has to be even.
        feedforward_size: Width of the feed-forward network; 0 leaves it out.
        num_latents: G, learned vectors before the tokens', which gather what the text says as a whole.
        dropout: Probability, on both additions.
    """

    def __init__(
        self,
        encoder_size: int,
        lm_size: int,
        rank: int | None = None,
        attention_size: int = 192,
        num_heads: int = 6,
        feedforward_size: int = 256,
        num_latents: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__(encoder_size, lm_size)
        if rank is not None and not 1 <= rank < min(encoder_size, lm_size):
            raise ConfigError(f"Expected a rank from 1 to {min(encoder_size, lm_size) - 1}, or null; found {rank}.")
        if attention_size < 0 or num_heads < 1 or attention_size % (2 * num_heads):
            raise ConfigError(
                f"Expected an attention_size that is a multiple of twice num_heads; found {attention_size} and "
                f"{num_heads}."
            )
        if feedforward_size < 0 or num_latents < 0:
            raise ConfigError(
                f"Expected feedforward_size and num_latents of at least 0; found {feedforward_size}, {num_latents}."
            )
        if num_latents and not attention_size:
            raise ConfigError(
                f"Expected num_latents 0 without attention, for latents would read nothing; found {num_latents}."
            )
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"Expected a dropout in [0, 1); found {dropout}.")
        self.num_heads = num_heads
        self.dropout = dropout
        self.reduce = None if rank is None else nn.Linear(encoder_size, rank, bias=False)
        self.map = nn.Linear(encoder_size if rank is None else rank, lm_size)
        self.latents = nn.Parameter(torch.randn(num_latents, lm_size))
        self.attention_in = self.attention_out = self.feedforward = None
        if attention_size:
            self.attention_in = nn.Linear(lm_size, 3 * attention_size, bias=False)
            self.attention_out = nn.Linear(attention_size, lm_size, bias=False)
            nn.init.zeros_(self.attention_out.weight)
        if feedforward_size:
            last = nn.Linear(feedforward_size, lm_size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.feedforward = nn.Sequential(nn.Linear(lm_size, feedforward_size), nn.GELU(), last)

    def forward(self, mixed: Tensor, mask: Tensor) -> Projected:
        """See `Projector.forward`; the latents come first."""
        span = _normalised(self.map(mixed if self.reduce is None else self.reduce(mixed)))
        num_latents = len(self.latents)
        if num_latents:
            span = torch.cat([self.latents.to(span.dtype).expand(len(span), -1, -1), span], dim=1)
            mask = F.pad(mask, (num_latents, 0), value=True)
        if self.attention_in is not None:
            span = span + F.dropout(self._attend(_normalised(span), mask, num_latents), self.dropout, self.training)
        if self.feedforward is not None:
            span = span + F.dropout(self.feedforward(_normalised(span)), self.dropout, self.training)
        return Projected(span, mask.sum(1))

    def _attend(self, span: Tensor, mask: Tensor, num_latents: int) -> Tensor:
        """What each of the positions (B,S,H) reads in the others."""
        assert self.attention_in is not None
        assert self.attention_out is not None
        batch_size, length, _ = span.shape
        query, key, value = (
            self.attention_in(span).view(batch_size, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        )
        positions = (torch.arange(length, device=span.device) - num_latents).clamp_min(-1) + 1  # latents share one
        read = F.scaled_dot_product_attention(
            _rotated(query, positions), _rotated(key, positions), value, attn_mask=mask[:, None, None, :]
        )
        attended: Tensor = self.attention_out(read.transpose(1, 2).flatten(2))
        return attended

    @torch.no_grad()
    def start_from(self, weight: Tensor, bias: Tensor, moments: Tensor) -> bool:
        """See `Projector.start_from`; a map with a rank keeps the directions in which its output varies most."""
        if self.reduce is None:
            self.map.weight.copy_(weight)
        else:
            weight = weight.double()
            _, directions = torch.linalg.eigh(weight @ moments.double() @ weight.T)  # (H,H), ascending
            kept = directions[:, -self.reduce.out_features :]
            self.map.weight.copy_(kept)
            self.reduce.weight.copy_(kept.T @ weight)
        self.map.bias.copy_(bias)
        return True


def _normalised(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-12)


def _rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Queries or keys (B,N,S,K), each half's pairs turned by an angle that grows with the position (S,)."""
    half = x.shape[-1] // 2
    rates = _ROTARY_BASE ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions.unsqueeze(1) * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
