"""Fusion: mixer, projector and boundary, from encoder hidden states to the span in the LM's embedding space.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width, S span positions without boundary, H LM
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.errors import ConfigError, did_you_mean
from glotfuse.fusion.centring import Centring
from glotfuse.fusion.mixers import MIXERS, MixerOutput
from glotfuse.fusion.projectors import PROJECTORS
from glotfuse.fusion.some_layers import SomeLayers, chosen_layers

LAYER_NORMS = ("none", "rms", "layer")
BOUNDARIES = ("zeros", "normal")


class Span(NamedTuple):
    """The encoder-derived embeddings inside the prompt."""

    embeddings: Tensor
    """(B,S+1,H): the summary where there is one, the valid positions, the boundary, then zeros."""
    mask: Tensor
    """(B,S+1), true for the positions that the LM reads: valid ones and the boundary, less those that token dropout
    leaves out."""
    layer_weights: Tensor
    """The mixer's weights, (L,) or (B,T,L)."""


class Fusion(nn.Module):
    """All that is trained.

    Args:
        num_layers: L.
        encoder_size: D.
        lm_size: H.
        mixer: A name in `MIXERS`.
        mixer_options: Options of that mixer.
        projector: A name in `PROJECTORS`.
        projector_options: Options of that projector.
        layer_norm: What is done to each layer's state before mixing: `none`, `rms` (unit root mean square) or
            `layer` (zero mean, unit variance), both without learned weights. T5-like encoders need one of the
            two when layers are mixed: their intermediate states are raw residual sums that grow with depth.
        centre: Whether each layer's mean state over English training text is taken away before mixing and the rest
            scaled to one; see `Centring`.
        match_scale: Root mean square that every projected vector is brought to, that of the LM's own token
            embeddings; None leaves the projector's output as it is.
        summary: Whether a first span position holds the mean of all others (brought to their scale). Single tokens
            of distant languages are read less surely than the text as a whole.
        state_dropout: Probability that an element of a mixed state is zeroed in training (inverted dropout). It keeps
            projector and LM from relying on details that other languages' states lack.
        token_dropout: Probability that a span position is left out in training, summary and boundary never.
        state_noise: Deviation of Gaussian noise on each mixed state in training, relative to its root mean square.
        layers: Encoder layers that are mixed, negative ones from the end; None takes those that the mixer reads.
        boundary: Start of the learned vector that ends the span: `zeros` (the paper) or `normal`
            (LangBridge's N(0,1), times `match_scale` where that is given).

    Raises:
        ConfigError: An unknown name or option.
    """

    reads_encoder = True

    def __init__(
        self,
        num_layers: int,
        encoder_size: int,
        lm_size: int,
        *,
        mixer: str = "transformer_softmax",
        mixer_options: dict[str, Any] | None = None,
        projector: str = "linear",
        projector_options: dict[str, Any] | None = None,
        layer_norm: str = "none",
        centre: bool = False,
        match_scale: float | None = None,
        summary: bool = False,
        state_dropout: float = 0.0,
        token_dropout: float = 0.0,
        state_noise: float = 0.0,
        layers: Sequence[int] | None = None,
        boundary: str = "zeros",
    ):
        super().__init__()
        for key, value, known in (("layer_norm", layer_norm, LAYER_NORMS), ("boundary", boundary, BOUNDARIES)):
            if value not in known:
                raise ConfigError(
                    f"Expected {key} out of {', '.join(known)}; found {value!r}.{did_you_mean(value, known)}"
                )
        for name, rate in (("state_dropout", state_dropout), ("token_dropout", token_dropout)):
            if not 0.0 <= rate < 1.0:
                raise ConfigError(f"Expected {name} in [0, 1); found {rate}.")
        self.num_layers = num_layers
        self.summary = summary
        self.state_dropout = state_dropout
        self.token_dropout = token_dropout
        self.state_noise = state_noise
        self.layer_norm = layer_norm
        self.match_scale = match_scale
        self.centring = Centring(num_layers, encoder_size) if centre else None
        if layers is None:
            self.mixer = MIXERS.build(mixer, mixer_options, num_layers=num_layers, hidden_size=encoder_size)
        else:
            chosen = chosen_layers(layers, num_layers)
            inner = MIXERS.build(mixer, mixer_options, num_layers=len(chosen), hidden_size=encoder_size)
            self.mixer = SomeLayers(inner, chosen, num_layers)
        width = self.mixer.output_size
        self.projector = PROJECTORS.build(projector, projector_options, encoder_size=width, lm_size=lm_size)
        read = list(self.mixer.layers)
        if read != sorted(set(read)) or not read or read[0] < 0 or read[-1] >= num_layers:
            raise ConfigError(f"Expected ascending layers of the mixer, each once, below {num_layers}; found {read}.")
        start = torch.zeros(lm_size) if boundary == "zeros" else torch.randn(lm_size) * (match_scale or 1.0)
        self.boundary = nn.Parameter(start)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> Span:
        """Makes the span.

        Args:
            hidden_states: L tensors (B,T,D), the embedding output left out; or those of `mixer.layers` alone.
            mask: (B,T), true for real tokens, which come first in every row.
        """
        return self.project(self.mix(hidden_states, mask.bool()), mask)

    def project(self, mixed: MixerOutput, mask: Tensor) -> Span:
        """The second half alone: from mixed states (B,T,D) to the span."""
        states, layer_weights = mixed
        mask = mask.bool()
        if self.training and self.state_noise:
            scale = states.detach().pow(2).mean(-1, keepdim=True).sqrt()
            states = states + self.state_noise * scale * torch.randn_like(states)
        states = F.dropout(states, self.state_dropout, self.training)
        embeddings, lengths = self.projector(states, mask)
        embeddings = self._scale(embeddings)
        positions = torch.arange(embeddings.shape[1] + 1, device=embeddings.device)
        is_boundary = (positions == lengths.unsqueeze(1)).unsqueeze(-1)  # (B,S+1,1)
        span_mask = positions <= lengths.unsqueeze(1)
        embeddings = F.pad(embeddings, (0, 0, 0, 1)) * (span_mask.unsqueeze(-1) & ~is_boundary)
        summary = self._scale(embeddings.sum(1, keepdim=True) / lengths.view(-1, 1, 1))
        embeddings = torch.where(is_boundary, self.boundary.to(embeddings.dtype), embeddings)
        if self.training and self.token_dropout:
            kept = torch.rand(span_mask.shape, device=span_mask.device) >= self.token_dropout
            span_mask = span_mask & (kept | is_boundary.squeeze(-1))
        if self.summary:
            embeddings = torch.cat([summary, embeddings], dim=1)
            span_mask = F.pad(span_mask, (1, 0), value=True)
        return Span(embeddings * span_mask.unsqueeze(-1), span_mask, layer_weights)

    def _scale(self, embeddings: Tensor) -> Tensor:
        if self.match_scale is None:
            return embeddings
        # A larger eps would leave small projections, which a fresh projector may well give, off the scale.
        return F.rms_norm(embeddings, embeddings.shape[-1:], eps=1e-12) * self.match_scale

    def mix(self, hidden_states: Sequence[Tensor], mask: Tensor) -> MixerOutput:
        """The first half alone: normalises tensors (B,T,D) of all layers or the mixer's, and mixes the mixer's."""
        layers = self.mixer.layers
        if len(hidden_states) == self.num_layers:
            hidden_states = [hidden_states[layer] for layer in layers]
        if len(hidden_states) != len(layers):
            raise ValueError(
                f"Expected states of {self.num_layers} layers, or of the mixer's {len(layers)}; "
                f"found {len(hidden_states)} tensors."
            )
        # mixed precision would put the mixers' gradients off by up to 15%, and mixing costs next to nothing
        with torch.autocast(mask.device.type, enabled=False):
            states = [self.ready(x, layer) for layer, x in zip(layers, hidden_states, strict=True)]
            output: MixerOutput = self.mixer(states, mask)
        return output

    def ready(self, states: Tensor, layer: int) -> Tensor:
        """One layer's states (B,T,D) as they are mixed: normalised and centred."""
        states = self.normalise(states)
        return states if self.centring is None else self.centring(states, layer)

    def normalise(self, states: Tensor) -> Tensor:
        """One layer's states (B,T,D) in the fusion's dtype, on its device, normalised each by itself."""
        states = states.to(self.boundary)
        width = states.shape[-1:]
        if self.layer_norm == "rms":
            return F.rms_norm(states, width, eps=1e-6)
        if self.layer_norm == "layer":
            return F.layer_norm(states, width, eps=1e-6)
        return states
