"""Warm start of the projector: the span begins as a rough rendering of the text in the LM's own embeddings.

For English text the same characters are tokens of both models. Before training, the linear projector is set to the
ridge regression from each encoder token's mixed state to the mean LM embedding of the LM tokens that cover the same
characters. Only unlabelled English text is used, no gradient, and a few seconds. Training then starts from vectors
that the LM can read, instead of having to find its embedding space from the answers' loss alone.

Shapes: D encoder width, H LM width, n aligned tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glotfuse.errors import ConfigError
from glotfuse.model.fused_model import FusedModel

logger = logging.getLogger(__name__)

_BATCH_SIZE = 16


@dataclass(frozen=True)
class WarmStartReport:
    """What the warm start found."""

    num_tokens: int
    """Encoder tokens that share characters with LM tokens."""
    explained_variance: float
    """Share of the LM embeddings' variance that the regression explains, at most 1."""


@torch.no_grad()
def align(
    model: FusedModel,
    texts: Sequence[str],
    *,
    language: str | None = None,
    ridge: float = 0.01,
    progress: Callable[[int], None] | None = None,
) -> WarmStartReport:
    """Sets the model's linear projector by ridge regression on English texts.

    Args:
        model: A model with the `linear` projector.
        texts: English texts as the encoder reads them.
        language: Their code, for encoders that need a source language.
        ridge: Regularisation, relative to the mean diagonal of the states' second moments.
        progress: Called with the number of texts of each batch.

    Raises:
        ConfigError: The projector is not linear, or a tokenizer does not tell which characters its tokens cover.
    """
    projector = model.mixing.projector
    width, lm_width = projector.encoder_size, projector.lm_size
    if not projector.start_from(torch.zeros(lm_width, width), torch.zeros(lm_width), torch.eye(width)):
        raise ConfigError(
            f"Expected the projector 'linear' or 'contextual' for the warm start 'align'; found "
            f"{type(projector).__name__}. Set fusion.warm_start to 'none'."
        )
    for owner, tokenizer in (("encoder", model.encoder.tokenizer), ("LM", model.lm.tokenizer)):
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"Expected a fast tokenizer of the {owner} for the warm start 'align', which needs character "
                f"offsets; found {type(tokenizer).__name__}. Set fusion.warm_start to 'none'."
            )
    was_training = model.training
    model.eval()
    moments = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    products = torch.zeros(width + 1, lm_width, dtype=torch.float64)
    target_sum, target_square, count = torch.zeros(lm_width, dtype=torch.float64), 0.0, 0
    for start in range(0, len(texts), _BATCH_SIZE):
        states, targets = _aligned(model, texts[start : start + _BATCH_SIZE], language)
        states = torch.cat([states, torch.ones(len(states), 1, dtype=torch.float64)], dim=1)
        moments += states.T @ states
        products += states.T @ targets
        target_sum += targets.sum(0)
        target_square += float(targets.pow(2).sum())
        count += len(states)
        if progress is not None:
            progress(len(texts[start : start + _BATCH_SIZE]))
    if count == 0:
        raise ConfigError(
            "Expected tokens of encoder and LM that share characters for the warm start 'align'; found none. "
            "Give more training text, or set fusion.warm_start to 'none'."
        )
    if count <= width:
        logger.warning("The warm start has %d aligned tokens, fewer than the encoder's width of %d.", count, width)
    penalty = ridge * moments.diagonal().mean() * torch.eye(width + 1, dtype=torch.float64)
    weights = torch.linalg.solve(moments + penalty, products)  # (D+1,H)
    projector.start_from(weights[:-1].T, weights[-1], moments[:-1, :-1] / count)
    model.train(was_training)
    residual = target_square - 2 * float((weights * products).sum()) + float((weights * (moments @ weights)).sum())
    variance = target_square - float(target_sum.pow(2).sum()) / count
    return WarmStartReport(count, 1.0 - residual / variance if variance > 0 else 0.0)


def _aligned(model: FusedModel, texts: Sequence[str], language: str | None) -> tuple[Tensor, Tensor]:
    """Mixed states (n,D) and mean LM embeddings (n,H) of the tokens that share characters, in float64."""
    encoder, prefix = model.encoder, model.encoder.prefix
    encoder.use_language(language)
    read = encoder.tokenizer(
        [prefix + text for text in texts],
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=model.reader.max_length,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    mask = read["attention_mask"].bool()
    hidden_states = model.hidden_states(read["input_ids"], mask)
    mixed = model.mixing.mix(hidden_states, mask.to(model.device)).mixed.cpu().double()
    heard = model.lm.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    rows: list[int] = []
    columns: list[int] = []
    pairs: list[int] = []  # index of an aligned token, once for each LM token that covers it
    tokens: list[int] = []
    for row in range(len(texts)):
        ids = heard["input_ids"][row]
        spans = [(start - len(prefix), end - len(prefix)) for start, end in read["offset_mapping"][row].tolist()]
        for column, covering in overlaps(spans, heard["offset_mapping"][row]):
            pairs += [len(rows)] * len(covering)
            tokens += [ids[i] for i in covering]
            rows.append(row)
            columns.append(column)
    embeddings = model.lm.embed(torch.tensor(tokens, dtype=torch.long)).cpu().double()
    index = torch.tensor(pairs, dtype=torch.long)
    sums = embeddings.new_zeros(len(rows), embeddings.shape[-1]).index_add_(0, index, embeddings)
    return mixed[rows, columns], sums / torch.bincount(index, minlength=len(rows)).unsqueeze(1)


def overlaps(spans: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, range]]:
    """For each span with characters of its own, its index and the indices of the others that share some.

    Both are in the order of the text. Spans that are empty or begin before it (special tokens, the prefix) have none.
    """
    found = []
    first = 0
    for index, (start, end) in enumerate(spans):
        if start < 0 or end <= start:
            continue
        while first < len(others) and others[first][1] <= start:
            first += 1
        last = first
        while last < len(others) and others[last][0] < end:
            last += 1
        if last > first:
            found.append((index, range(first, last)))
    return found
