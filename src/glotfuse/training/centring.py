"""Measures the mean and scale of encoder states on the training texts, for `glotfuse.fusion.centring`.

Shapes: B batch, T encoder tokens, K layers that the mixer reads, D encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from glotfuse.errors import ConfigError
from glotfuse.fusion.centring import Centring
from glotfuse.inputs.order import inference_batches
from glotfuse.inputs.padding import pad_and_mask
from glotfuse.model.fused_model import FusedModel

_BATCH_SIZE = 16


@torch.no_grad()
def centre(model: FusedModel, ids: Sequence[list[int]], progress: Callable[[int], None] | None = None) -> int:
    """Sets the mean and scale of every layer that the model's mixer reads.

    Args:
        model: A model whose fusion centres states.
        ids: Encoder ids of training texts.
        progress: Called with the number of texts of each batch.

    Returns:
        Number of tokens that were measured.

    Raises:
        ConfigError: There is no token.
    """
    fusion, layers = model.mixing, list(model.mixing.mixer.layers)
    assert isinstance(fusion.centring, Centring)
    width = model.encoder.hidden_size
    sums = torch.zeros(len(layers), width, dtype=torch.float64)
    squares = torch.zeros(len(layers), dtype=torch.float64)
    count = 0
    for chosen in inference_batches([len(row) for row in ids], _BATCH_SIZE, model.device):
        tokens, mask = pad_and_mask([ids[i] for i in chosen], model.encoder.pad_token_id)
        states = model.hidden_states(tokens, mask)
        for place, layer in enumerate(states):
            real = fusion.normalise(layer).cpu().double()[mask]
            sums[place] += real.sum(0)
            squares[place] += real.pow(2).sum()
        count += int(mask.sum())
        if progress is not None:
            progress(len(chosen))
    if count == 0:
        raise ConfigError("Expected training text to centre encoder states by; found none.")
    means = sums / count
    variances = squares / (count * width) - means.pow(2).mean(1)
    for place, layer_index in enumerate(layers):
        fusion.centring.set(layer_index, means[place], float(variances[place].clamp_min(0.0).sqrt()))
    return count
