"""Label scoring: the log-probability of every label word after the prompt.

Shapes: B batch, M positions after the head, R label words, A tokens of a label word, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.prefix_cache import continued
from glotfuse.errors import PromptError
from glotfuse.inputs import PreparedExample, collate
from glotfuse.sequences import IGNORED, Sequences

if TYPE_CHECKING:
    from glotfuse.model import FusedLM


_MAX_ROWS = 128
"""Most rows, texts times label words, that continue from a copy of the cache at once: it takes memory."""


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


def classify(model: FusedLM, examples: Sequence[PreparedExample], batch_size: int) -> list[Classification]:
    """Labels prepared examples; batches hold texts of similar length, results keep the given order.

    Raises:
        PromptError: The model has no labels.
    """
    if not model.labels:
        raise PromptError("Expected a model with labels; found one trained without. Use generate instead.")
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].encoder_ids) - len(examples[i].text_ids))
    results: dict[int, Classification] = {}
    with model.answering():
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
    label_ids = model.label_ids
    several = [r for r, ids in enumerate(label_ids) if len(ids) > 1]
    if several and model.head_cache(model.prompt) is None:
        return _score_whole(model, sequences, label_ids)
    logits, cache = model.run_lm(sequences, sequences.last())
    scores = torch.log_softmax(logits, dim=-1)[:, [ids[0] for ids in label_ids]]
    at_once = max(1, _MAX_ROWS // len(examples))
    for start in range(0, len(several), at_once):
        chosen = several[start : start + at_once]
        scores[:, chosen] += _score_rest(model, sequences, cache, [label_ids[r] for r in chosen])
    return scores


def _score_rest(model: FusedLM, sequences: Sequences, cache: Any, label_ids: list[list[int]]) -> Tensor:
    """Log-probability of R label words' tokens after the first, (B,R), continuing from the batch's cache.

    The cached rows are padded at the right. Their padding moves to the left first, so that the label tokens
    follow without a gap, which attention windows and ALiBi positions would count.
    """
    device, batch_size, num_labels = sequences.mask.device, len(sequences.mask), len(label_ids)
    num_head = len(model.prompt.head_ids)
    inputs = _padded([ids[:-1] for ids in label_ids], device).repeat(batch_size, 1)  # (B*R,A-1)
    targets = _padded([ids[1:] for ids in label_ids], device).repeat(batch_size, 1)
    seen = F.pad(sequences.mask, (num_head, 0), value=True)
    order = seen.to(torch.uint8).argsort(dim=1, stable=True)
    mask = torch.cat([seen.take_along_dim(order, 1).repeat_interleave(num_labels, 0), inputs != IGNORED], dim=1)
    begin = (num_head + sequences.lengths).repeat_interleave(num_labels).unsqueeze(1)
    keep = targets != IGNORED
    logits = model.lm.run(
        model.lm.embed(inputs.clamp_min(0)),
        keep,
        cache=continued(cache, order, num_labels),
        attention_mask=mask.long(),
        position_ids=begin + torch.arange(inputs.shape[1], device=device),
    )
    return _sum_targets(logits, keep, targets).view(batch_size, num_labels)


def _score_whole(model: FusedLM, sequences: Sequences, label_ids: list[list[int]]) -> Tensor:
    """The same by a full pass per label word, where nothing is cached."""
    columns = []
    for ids in label_ids:
        answer = torch.tensor(ids, device=sequences.mask.device).expand(len(sequences.mask), -1)
        whole = sequences.append(model.lm.embed(answer), answer)
        targets = whole.next_targets()
        keep = targets != IGNORED
        logits, _ = model.run_lm(whole, keep)
        columns.append(_sum_targets(logits, keep, targets))
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
