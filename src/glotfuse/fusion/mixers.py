"""Mixers: from the hidden states of all encoder layers to one state per token.

Shapes: B batch, T encoder tokens, L encoder layers (the embedding output is left out), D encoder width,
N heads. A mixer reads L tensors (B,T,D) and a mask (B,T), true for real tokens. It returns the mixed states
(B,T,D) and its layer weights, (L,) or (B,T,L), which sum to one over L. Padding tokens get zero states, and zero
weights where weights are per token. A mixer that keeps its layers apart returns wider states, (B,T,`output_size`).

Sources: Puranegedara et al. 2025, arXiv 2508.09091 (global and transformer softmax); Yoon et al. 2024,
arXiv 2401.10695 (last layer).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.errors import ConfigError
from glotfuse.fusion.functions import constant_query, weighted_sum
from glotfuse.fusion.registry import Registry


class MixerOutput(NamedTuple):
    """What a mixer returns."""

    mixed: Tensor
    """One state per token, (B,T,D)."""
    layer_weights: Tensor
    """Normalised weights, (L,) when the same for every token, else (B,T,L)."""


class Mixer(nn.Module, ABC):
    """Base of all mixers.

    Args:
        num_layers: L.
        hidden_size: D.
    """

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__()
        self.num_layers = num_layers
        self.hidden_size = hidden_size

    @property
    def output_size(self) -> int:
        """Width of the mixed states; D unless a mixer says otherwise."""
        return self.hidden_size

    @property
    def layers(self) -> Sequence[int]:
        """Indices of the layers that it reads, from 0, ascending; all unless a mixer says otherwise.

        Its layer weights have an entry for every layer all the same.
        """
        return range(self.num_layers)

    def shared_weights(self) -> Tensor | None:
        """Its weights (L,) where they are the same for every token whatever the states, else None.

        With such weights answers need only a running sum of the layers.
        """
        return None

    @abstractmethod
    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """Mixes the tensors (B,T,D) of `layers` under a boolean mask (B,T)."""


MIXERS: Registry[Mixer] = Registry("mixer", ("num_layers", "hidden_size"))
register_mixer = MIXERS.register


@register_mixer("last")
class LastLayer(Mixer):
    """The last layer alone, as LangBridge does."""

    @property
    def layers(self) -> Sequence[int]:
        """The last."""
        return (self.num_layers - 1,)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`; the weights are one for the last layer and zero elsewhere."""
        return MixerOutput(hidden_states[-1] * mask.unsqueeze(-1), self.shared_weights().to(hidden_states[-1]))

    def shared_weights(self) -> Tensor:
        """One for the last layer."""
        return F.one_hot(torch.tensor(self.num_layers - 1), self.num_layers).float()


@register_mixer("mean")
class MeanOfLayers(Mixer):
    """All layers with the same weight."""

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`."""
        weights = self.shared_weights().to(hidden_states[0])
        return MixerOutput(weighted_sum(hidden_states, weights) * mask.unsqueeze(-1), weights)

    def shared_weights(self) -> Tensor:
        """Equal weights (L,)."""
        return torch.full((self.num_layers,), 1.0 / self.num_layers, dtype=torch.float64)


@register_mixer("concat")
class SideBySide(Mixer):
    """All layers side by side, (B,T,L*D): the projector has a map of its own for each."""

    @property
    def output_size(self) -> int:
        """L times D."""
        return self.num_layers * self.hidden_size

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`; the weights are equal, for no layer is chosen."""
        weights = hidden_states[0].new_full((self.num_layers,), 1.0 / self.num_layers)
        return MixerOutput(torch.cat(list(hidden_states), dim=-1) * mask.unsqueeze(-1), weights)


@register_mixer("global_softmax")
class GlobalSoftmax(Mixer):
    """One learned logit per layer, softmax(temperature * logits), the same for every token.

    The logarithm of the temperature passes through a sigmoid, so it stays between its two bounds whatever the
    optimizer does.

    Args:
        num_layers: L.
        hidden_size: D.
        temperature: The factor's value at the start (the paper's code starts near 101).
        min_temperature: Its lower bound, above zero.
        max_temperature: Its upper bound.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        temperature: float = 10.0,
        min_temperature: float = 0.1,
        max_temperature: float = 1000.0,
    ):
        super().__init__(num_layers, hidden_size)
        if not 0 < min_temperature < temperature < max_temperature:
            raise ConfigError(
                "Expected 0 < min_temperature < temperature < max_temperature; found "
                f"{min_temperature}, {temperature}, {max_temperature}."
            )
        self._log_low = math.log(min_temperature)
        self._log_range = math.log(max_temperature) - self._log_low
        start = (math.log(temperature) - self._log_low) / self._log_range
        self.layer_logits = nn.Parameter(torch.zeros(num_layers))
        self.raw_temperature = nn.Parameter(torch.tensor(math.log(start / (1.0 - start))))

    @property
    def temperature(self) -> Tensor:
        """The factor before the softmax: a positive, bounded scalar."""
        return torch.exp(self._log_low + self._log_range * torch.sigmoid(self.raw_temperature))

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`."""
        weights = self.shared_weights()
        return MixerOutput(weighted_sum(hidden_states, weights) * mask.unsqueeze(-1), weights)

    def shared_weights(self) -> Tensor:
        """softmax(temperature * logits)."""
        return torch.softmax(self.temperature * self.layer_logits, dim=0)


@register_mixer("transformer_softmax")
class TransformerSoftmax(Mixer):
    """Weights per token, from one Transformer encoder layer over the token's own layer states.

    Textbook form: for each token, [cls, x_1 + p_1, ..., x_L + p_L] passes through a post-norm encoder layer;
    the output at cls passes through a linear map D -> L and a softmax. Only that one output is read and its query
    is a constant, so this class computes the same with one query for all tokens: keys are never projected (the
    query is folded through the key projection), values are averaged before their projection, and the rest runs
    once per token. Without dropout this equals the textbook form to rounding; with dropout, in distribution.

    Args:
        num_layers: L.
        hidden_size: D.
        num_heads: N, a divisor of D.
        feedforward_size: Width of the feed-forward network.
        dropout: Probability, at the four places of `nn.TransformerEncoderLayer`.
        position_std: Standard deviation of the layers' position embeddings at the start; 1.0 in the paper's code.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        num_heads: int = 1,
        feedforward_size: int = 2048,
        dropout: float = 0.1,
        position_std: float = 0.02,
    ):
        super().__init__(num_layers, hidden_size)
        if num_heads < 1 or hidden_size % num_heads:
            raise ConfigError(f"Expected num_heads to divide the encoder width {hidden_size}; found {num_heads}.")
        if feedforward_size < 1:
            raise ConfigError(f"Expected a feedforward_size of at least 1; found {feedforward_size}.")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"Expected a dropout in [0, 1); found {dropout}.")
        if not 0.0 <= position_std < math.inf:
            raise ConfigError(f"Expected a position_std of at least 0; found {position_std}.")
        self.num_heads = num_heads
        # Holds the parameters, with torch's own start values and names; its forward is never called.
        self.layer = nn.TransformerEncoderLayer(
            hidden_size, num_heads, feedforward_size, dropout, activation="relu", batch_first=True
        )
        self.cls = nn.Parameter(torch.zeros(hidden_size))
        self.positions = nn.Parameter(torch.randn(num_layers, hidden_size) * position_std)
        self.to_weights = nn.Linear(hidden_size, num_layers)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """See `Mixer.forward`."""
        attended = self._attend(hidden_states)
        layer = self.layer
        state = layer.norm1(self.cls + layer.dropout1(attended))
        hidden = layer.dropout(F.relu_(layer.linear1(state)))
        state = layer.norm2(state + layer.dropout2(layer.linear2(hidden)))
        weights = torch.softmax(self.to_weights(state), dim=-1) * mask.unsqueeze(-1)  # (B,T,L)
        return MixerOutput(weighted_sum(hidden_states, weights), weights)

    def _attend(self, hidden_states: Sequence[Tensor]) -> Tensor:
        """The attention output at cls for every token, (B,T,D)."""
        attention = self.layer.self_attn
        heads, width = self.num_heads, self.hidden_size
        folded, w_value = constant_query(attention.in_proj_weight, attention.in_proj_bias, self.cls, heads)
        folded = folded / math.sqrt(width // heads)  # (N,D)
        b_value = attention.in_proj_bias[2 * width :].view(heads, width // heads)
        # The key bias adds the same to all L+1 scores of a head and drops out of the softmax.
        position_scores = self.positions @ folded.T  # (L,N)
        scores = [F.linear(x, folded) + position_scores[i] for i, x in enumerate(hidden_states)]
        cls_score = (folded @ self.cls).expand_as(scores[0])
        attn = torch.softmax(torch.stack([cls_score, *scores], dim=-1), dim=-1)  # (B,T,N,L+1)
        attn = F.dropout(attn, attention.dropout, self.training)

        sums = [weighted_sum(hidden_states, attn[..., n, 1:]).unsqueeze(-2) for n in range(heads)]
        averaged = sums[0] if heads == 1 else torch.cat(sums, dim=-2)
        averaged = averaged + attn[..., :1] * self.cls + attn[..., 1:] @ self.positions  # (B,T,N,D)
        values = torch.einsum("btnd,nkd->btnk", averaged, w_value)
        values = values + attn.sum(-1, keepdim=True) * b_value  # the sum is not one under dropout
        output: Tensor = attention.out_proj(values.flatten(-2))
        return output
