"""One pass over rows of one language: layer weights over tokens, and one vector per row of every stage.

Shapes: N rows, B batch, T tokens, L layers, D encoder width, S+1 span positions, H LM width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glotfuse.backbones.encoder import special_ids
from glotfuse.fusion import Span
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.order import inference_batches
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.layer_weights import WeightMoments


@dataclass(frozen=True)
class Readings:
    """What one pass found, in float32 on the CPU."""

    layers: Tensor
    """(N,L,D), states of each encoder layer, averaged over a row's tokens, special tokens included."""
    mixed: Tensor
    """(N,D), mixed states, averaged likewise."""
    span: Tensor
    """(N,H), span embeddings averaged over the positions that the LM reads, the boundary left out."""
    weights: WeightMoments
    """Of the layer weights."""


def read_rows(
    model: FusedModel,
    examples: Sequence[PreparedExample],
    language: str | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Readings:
    """Runs encoder, mixer and projector over rows.

    Args:
        model: The model.
        examples: Prepared rows, at least one.
        language: Code of their language.
        batch_size: Rows per pass; it does not change the outcome.
        progress: Called with the number of rows of each pass.
    """
    num_rows, encoder = len(examples), model.encoder
    layers = torch.zeros(num_rows, encoder.num_layers, encoder.hidden_size)
    mixed = torch.zeros(num_rows, encoder.hidden_size)
    span = torch.zeros(num_rows, model.lm.embedding_size)
    moments = WeightMoments.zeros(encoder.num_layers)
    lengths = [len(example.encoder_ids) for example in examples]
    specials = torch.tensor(sorted(special_ids(encoder, language)))
    with model.answering():
        for chosen in inference_batches(lengths, batch_size, model.device):
            batch = collate([examples[i] for i in chosen], encoder.pad_token_id)
            states = [x.to(model.device) for x in encoder(batch.encoder_ids, batch.encoder_mask)]
            mask = batch.encoder_mask.to(model.device)
            output = model.mixing.mix(states, mask)
            projected = model.mixing.project(output, mask)
            layers[chosen] = torch.stack([_mean(x, mask) for x in states], dim=1)
            mixed[chosen] = _mean(output.mixed, mask)
            span[chosen] = _mean(projected.embeddings, _without_boundary(projected))
            moments.add(output.layer_weights, batch.encoder_mask & ~torch.isin(batch.encoder_ids, specials))
            if progress is not None:
                progress(len(chosen))
    return Readings(layers, mixed, span, moments)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (B,D) of states (B,T,D) over the true positions of (B,T)."""
    kept = mask.unsqueeze(-1)
    return ((states.float() * kept).sum(1) / kept.sum(1)).cpu()


def _without_boundary(span: Span) -> Tensor:
    """The span's mask (B,S+1) without the last valid position of each row, which is the boundary."""
    positions = torch.arange(span.mask.shape[1], device=span.mask.device)
    return span.mask & (positions < span.mask.sum(1, keepdim=True) - 1)
