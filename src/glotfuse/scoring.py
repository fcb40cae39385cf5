"""Label scoring: the log-probability of every label word after the prompt.

Shapes: B batch, M positions after the head, R label words, A tokens of a label word, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glotfuse.errors import PromptError
from glotfuse.inputs import IGNORED, PreparedExample, collate

if TYPE_CHECKING:
    from glotfuse.model import FusedLM, Sequences


@dataclass(frozen=True)
class Classification:
    """A text's label."""

    label: str
    """The most probable label word."""
    probabilities: dict[str, float]
    """Probability of every label word, normalised over the label words."""
    log_probabilities: dict[str, float]
    """Logarithms of the same."""
    truncated: bool
    """Whether the text was cut to the length limit."""


@torch.inference_mode()
def classify(model: FusedLM, examples: Sequence[PreparedExample], batch_size: int) -> list[Classification]:
    """Labels prepared examples; batches hold texts of similar length, results keep the given order.

    Raises:
        PromptError: The model has no labels.
    """
    if not model.labels:
        raise PromptError("Expected a model with labels; found one trained without. Use generate instead.")
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].encoder_ids) - len(examples[i].text_ids))
    results: dict[int, Classification] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        scores = score_labels(model, [examples[i] for i in chosen])
        log_probabilities = torch.log_softmax(scores, dim=-1).tolist()
        for index, row in zip(chosen, log_probabilities, strict=True):
            results[index] = _classification(model.labels, row, examples[index].truncated)
    return [results[i] for i in range(len(examples))]


def score_labels(model: FusedLM, examples: Sequence[PreparedExample]) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), in float32.

    All first tokens are read from one forward pass; words of several tokens continue from its cache.
    """
    batch = collate(examples, model.encoder.pad_token_id)
    sequences = model.assemble(batch)
    lengths = sequences.mask.sum(1)
    positions = torch.arange(sequences.mask.shape[1], device=lengths.device)
    last = positions == lengths.unsqueeze(1) - 1  # (B,M)
    label_ids = model.label_ids
    longest = max(len(ids) for ids in label_ids)
    if longest > 1 and not _gap_is_exact(model, sequences, longest):
        return _score_whole(model, sequences, label_ids)
    logits, cache = model.run_lm(sequences, last)
    if longest > 1 and cache is None:
        return _score_whole(model, sequences, label_ids)
    scores = torch.log_softmax(logits, dim=-1)[:, [ids[0] for ids in label_ids]]
    if longest > 1:
        scores = scores + _score_rest(model, sequences, cache, label_ids)
    return scores


def _gap_is_exact(model: FusedLM, sequences: Sequences, num_label_tokens: int) -> bool:
    """Label tokens follow each row's padding in the cache; attention windows count that gap, masks do not."""
    window = model.lm.sliding_window()
    total = len(model.prompt.head_ids) + sequences.mask.shape[1] + num_label_tokens
    return window is None or total <= window


def _score_rest(model: FusedLM, sequences: Sequences, cache: Any, label_ids: list[list[int]]) -> Tensor:
    """Log-probability of the label words' tokens after the first, (B,R), continuing from the batch's cache."""
    device, (batch_size, width) = sequences.mask.device, sequences.mask.shape
    several = [r for r, ids in enumerate(label_ids) if len(ids) > 1]
    inputs = _padded([label_ids[r][:-1] for r in several], device)  # (R',A-1)
    targets = _padded([label_ids[r][1:] for r in several], device)
    num_labels, num_tokens = inputs.shape
    num_head = len(model.prompt.head_ids)

    cache.batch_repeat_interleave(num_labels)
    seen = torch.cat([sequences.mask.new_ones(batch_size, num_head), sequences.mask], dim=1)
    mask = torch.cat([seen.repeat_interleave(num_labels, 0), (inputs != IGNORED).repeat(batch_size, 1)], dim=1)
    start = (num_head + sequences.mask.sum(1)).repeat_interleave(num_labels)
    position_ids = start.unsqueeze(1) + torch.arange(num_tokens, device=device)
    keep = (targets != IGNORED).repeat(batch_size, 1)
    logits = model.lm.run(
        model.lm.embed(inputs.clamp_min(0)).repeat(batch_size, 1, 1),
        keep,
        cache=cache,
        start=num_head + width,
        attention_mask=mask.long(),
        position_ids=position_ids,
    )
    summed = _sum_targets(logits, keep, targets.repeat(batch_size, 1)).view(batch_size, num_labels)
    scores = summed.new_zeros(batch_size, len(label_ids))
    scores[:, several] = summed
    return scores


def _score_whole(model: FusedLM, sequences: Sequences, label_ids: list[list[int]]) -> Tensor:
    """The same by a full pass per label word, for LMs whose cache cannot be continued after padding."""
    from glotfuse.model import Sequences

    device, (batch_size, width) = sequences.mask.device, sequences.mask.shape
    columns = []
    for ids in label_ids:
        answer = torch.tensor(ids, device=device).expand(batch_size, -1)
        mask = torch.cat([sequences.mask, torch.ones_like(answer, dtype=torch.bool)], dim=1)
        embeddings = torch.cat([sequences.embeddings, model.lm.embed(answer).to(sequences.embeddings.dtype)], dim=1)
        targets = torch.cat([torch.full_like(sequences.targets, IGNORED), answer], dim=1)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        targets = targets.take_along_dim(order, dim=1)
        following = torch.nn.functional.pad(targets[:, 1:], (0, 1), value=IGNORED)
        keep = following != IGNORED
        packed = Sequences(
            embeddings.take_along_dim(order.unsqueeze(-1), dim=1),
            mask.take_along_dim(order, dim=1),
            targets,
            sequences.layer_weights,
        )
        logits, _ = model.run_lm(packed, keep)
        columns.append(_sum_targets(logits, keep, following))
    return torch.stack(columns, dim=1)


def _sum_targets(logits: Tensor, keep: Tensor, targets: Tensor) -> Tensor:
    """Sums log-probabilities of the kept targets per row: (N,V) logits to (rows,)."""
    chosen = torch.log_softmax(logits, dim=-1).gather(1, targets[keep].unsqueeze(1)).squeeze(1)
    rows = keep.nonzero()[:, 0]
    return chosen.new_zeros(len(keep)).index_add_(0, rows, chosen)


def _padded(rows: list[list[int]], device: torch.device) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows], device=device)


def _classification(labels: Sequence[str], log_probabilities: list[float], truncated: bool) -> Classification:
    best = max(range(len(labels)), key=log_probabilities.__getitem__)
    by_label = dict(zip(labels, log_probabilities, strict=True))
    probabilities = {label: float(torch.tensor(value).exp()) for label, value in by_label.items()}
    return Classification(labels[best], probabilities, by_label, truncated)
