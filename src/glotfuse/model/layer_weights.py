"""Mean layer weights over the tokens of texts.

Shapes: B batch, T tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glotfuse.backbones.encoder import special_ids
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.model.fused_model import FusedModel


@dataclass
class WeightMoments:
    """Mean and standard deviation of layer weights (L,) over tokens, gathered batch by batch."""

    total: Tensor
    squares: Tensor
    num_tokens: int = 0

    @classmethod
    def zeros(cls, num_layers: int) -> WeightMoments:
        """Nothing gathered yet."""
        return cls(torch.zeros(num_layers, dtype=torch.float64), torch.zeros(num_layers, dtype=torch.float64))

    def add(self, layer_weights: Tensor, counted: Tensor) -> None:
        """Adds a batch's weights, (L,) or (B,T,L), over the tokens that are true in (B,T)."""
        weights = layer_weights.double().cpu().expand(*counted.shape, -1)[counted.cpu()]
        self.total += weights.sum(0)
        self.squares += weights.pow(2).sum(0)
        self.num_tokens += len(weights)

    @property
    def mean(self) -> Tensor:
        """(L,)."""
        return self.total / max(1, self.num_tokens)

    @property
    def std(self) -> Tensor:
        """(L,)."""
        return (self.squares / max(1, self.num_tokens) - self.mean.pow(2)).clamp_min(0.0).sqrt()


def shared_weights(model: FusedModel) -> Tensor | None:
    """The weights (L,) of a mixer that gives every token the same; None where they differ between tokens."""
    with model.answering():
        return model.mixing.mixer.shared_weights()


METRIC = "layer_weight_"
"""Beginning of a layer's name in the log of training; its number, counted from 1, follows."""


def layer_weight_metrics(
    model: FusedModel, examples: Sequence[PreparedExample], language: str | None = None, batch_size: int = 16
) -> dict[str, float]:
    """Mean layer weights over the tokens of prepared examples, for the log of training.

    Special tokens are left out. A mixer whose weights no token changes is not run.

    Args:
        model: The model.
        examples: The same few at every evaluation, at least one.
        language: Code of their language.
        batch_size: Examples per pass.

    Returns:
        `layer_weight_1` to `layer_weight_L`, the first encoder layer first; nothing for an LM that reads the plain
        text itself.
    """
    if not model.fusion.reads_encoder:
        return {}
    shared = shared_weights(model)
    if shared is not None:
        return _named(shared.tolist())
    moments = WeightMoments.zeros(model.encoder.num_layers)
    specials = torch.tensor(sorted(special_ids(model.encoder, language)))
    with model.answering():
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size], model.encoder.pad_token_id)
            states = model.hidden_states(batch.encoder_ids, batch.encoder_mask)
            weights = model.mixing.mix(states, batch.encoder_mask.to(model.device)).layer_weights
            moments.add(weights, batch.encoder_mask & ~torch.isin(batch.encoder_ids, specials))
    return _named(moments.mean.tolist())


def _named(weights: Sequence[float]) -> dict[str, float]:
    return {f"{METRIC}{i + 1}": weight for i, weight in enumerate(weights)}
