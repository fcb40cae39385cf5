"""Label scoring: the log-probability of every label word after the prompt.

Shapes: B batch, C head tokens, M positions after the head, R label words, A tokens of a label word, W nodes of the
tree of label words, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.prefix_cache import continued, some_rows
from glotfuse.batching import inference_batches
from glotfuse.errors import PromptError
from glotfuse.inputs import PreparedExample, collate
from glotfuse.label_tree import ROOT, LabelTree
from glotfuse.sequences import IGNORED, Sequences, pad_rows

if TYPE_CHECKING:
    from glotfuse.model import FusedLM

logger = logging.getLogger(__name__)

_MAX_ROWS = 128
"""Most rows, texts times label words, that continue from a copy of the cache at once: it takes memory."""
_MAX_LOGITS = 1 << 27
"""Most logits that a tree of label words may give at once, half a gigabyte."""
_CHECKED_ROWS = 2
"""Texts of the first batch on which the tree of label words is tried out."""


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
    lengths = [len(example.encoder_ids) + len(example.text_ids) for example in examples]
    results: dict[int, Classification] = {}
    with model.answering():
        for chosen in inference_batches(lengths, batch_size, model.device):
            scores = score_labels(model, [examples[i] for i in chosen])
            log_probabilities = torch.log_softmax(scores, dim=-1).tolist()
            for index, row in zip(chosen, log_probabilities, strict=True):
                results[index] = _classification(model.labels, row, examples[index].truncated)
    return [results[i] for i in range(len(examples))]


def score_labels(model: FusedLM, examples: Sequence[PreparedExample]) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), in float32.

    First tokens are read from the prompt's last position. Where label words have several, a second, short pass reads
    all of them from the prompt's cache: as one tree, in which words do not see each other, if the LM can; otherwise
    each from a copy of the cache; and without a cache by a whole pass per label word.
    """
    batch = collate(examples, model.encoder.pad_token_id)
    sequences = model.assemble(batch)
    label_ids = model.label_ids
    several = [r for r, ids in enumerate(label_ids) if len(ids) > 1]
    if several and model.head_cache(model.prompt) is None:
        return _score_whole(model, sequences, label_ids)
    logits, cache = model.run_lm(sequences, sequences.last())
    first = torch.log_softmax(logits, dim=-1)
    if not several:
        return first[:, [ids[0] for ids in label_ids]]
    tree = LabelTree.build(label_ids)
    if _can_branch(model, sequences, cache, tree, first):
        at_once = max(1, _MAX_LOGITS // (len(tree.token_ids) * first.shape[1]))
        if at_once >= len(examples):
            return _score_tree(model, sequences, cache, tree, first)
        parts = []
        for start in range(0, len(examples), at_once):
            end = min(start + at_once, len(examples))
            rows = Sequences(*(x[start:end] for x in sequences))
            parts.append(_score_tree(model, rows, some_rows(cache, start, end), tree, first[start:end]))
        return torch.cat(parts)
    return _score_words(model, sequences, cache, label_ids, first)


def _can_branch(model: FusedLM, sequences: Sequences, cache: Any, tree: LabelTree, first: Tensor) -> bool:
    """Whether the LM obeys a mask that makes a tree of the label words; tried out once per model and prompt."""
    total = len(model.prompt.head_ids) + sequences.mask.shape[1] + len(tree.token_ids)
    if not model.lm.obeys_mask(total):
        return False
    if model.branching is None:
        model.branching = _try_branching(model, sequences, cache, tree, first)
    return model.branching


def _try_branching(model: FusedLM, sequences: Sequences, cache: Any, tree: LabelTree, first: Tensor) -> bool:
    """Whether reading label words as a tree gives the scores that they have one by one."""
    few = min(_CHECKED_ROWS, len(sequences.mask))
    rows = Sequences(*(x[:few] for x in sequences))
    by_word = _score_words(model, rows, some_rows(cache, 0, few), model.label_ids, first[:few])
    try:
        by_tree = _score_tree(model, rows, some_rows(cache, 0, few), tree, first[:few])
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Label words are scored one by one: %s cannot read them as a tree (%s).", _name(model), error)
        return False
    num_tokens = torch.tensor([len(path) for path in tree.paths], device=rows.mask.device)
    difference = (by_tree - by_word).abs() / num_tokens  # every token's rounding adds up
    if bool((difference <= model.lm.tolerance).all()):
        return True
    logger.warning(
        "Label words are scored one by one: read as a tree, %s gives log-probabilities that differ by %.1e per token.",
        _name(model),
        float(difference.max()),
    )
    return False


def _name(model: FusedLM) -> str:
    return type(model.lm.model).__name__


def _score_tree(model: FusedLM, sequences: Sequences, cache: Any, tree: LabelTree, first: Tensor) -> Tensor:
    """Log-probability of R label words, (B,R), in one pass over W nodes per row, which the cache then holds too.

    Args:
        model: The model.
        sequences: The rows after the head.
        cache: Keys and values of head and rows.
        tree: The label words.
        first: (B,V), log-probabilities at each row's last position.
    """
    device, batch_size = sequences.mask.device, len(sequences.mask)
    num_head, num_nodes = len(model.prompt.head_ids), len(tree.token_ids)
    nodes = torch.tensor(tree.token_ids, device=device).expand(batch_size, -1)
    seen = F.pad(sequences.mask, (num_head, 0), value=True).unsqueeze(1).expand(-1, num_nodes, -1)
    among = torch.tensor(tree.visible(), device=device).expand(batch_size, -1, -1)
    hidden = ~torch.cat([seen, among], dim=2)  # (B,W,C+M+W)
    dtype = model.lm.dtype
    mask = hidden.to(dtype).masked_fill(hidden, torch.finfo(dtype).min).unsqueeze(1)
    begin = (num_head + sequences.lengths).unsqueeze(1)
    logits = model.lm.run(
        model.lm.embed(nodes),
        torch.ones_like(nodes, dtype=torch.bool),
        cache=cache,
        attention_mask=mask,
        position_ids=begin + torch.tensor(tree.depths, device=device),
    )
    normaliser = logits.logsumexp(-1).view(batch_size, num_nodes)
    after = logits.view(batch_size, num_nodes, -1)
    columns = []
    for path in tree.paths:
        terms = [
            first[:, token] if node == ROOT else after[:, node, token] - normaliser[:, node] for node, token in path
        ]
        columns.append(torch.stack(terms).sum(0))
    return torch.stack(columns, dim=1)


def _score_words(model: FusedLM, sequences: Sequences, cache: Any, label_ids: list[list[int]], first: Tensor) -> Tensor:
    """The same from copies of the cache, one for each label word of several tokens."""
    scores = first[:, [ids[0] for ids in label_ids]]
    several = [r for r, ids in enumerate(label_ids) if len(ids) > 1]
    at_once = max(1, _MAX_ROWS // len(sequences.mask))
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
    inputs = pad_rows([ids[:-1] for ids in label_ids]).to(device).repeat(batch_size, 1)  # (B*R,A-1)
    targets = pad_rows([ids[1:] for ids in label_ids]).to(device).repeat(batch_size, 1)
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


def _classification(labels: Sequence[str], log_probabilities: list[float], truncated: bool) -> Classification:
    best = max(range(len(labels)), key=log_probabilities.__getitem__)
    by_label = dict(zip(labels, log_probabilities, strict=True))
    probabilities = {label: float(torch.tensor(value).exp()) for label, value in by_label.items()}
    return Classification(labels[best], probabilities, by_label, truncated)
