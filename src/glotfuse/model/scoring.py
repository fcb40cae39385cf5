"""Label scoring: the log-probability of every label word after the prompt.

Shapes: B batch, C head tokens, M positions after the head, R label words, A tokens of a label word, W nodes of the
tree of label words, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.prefix_cache import continued
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.padding import IGNORED, pad_rows
from glotfuse.model.label_tree import LabelTree
from glotfuse.model.sequences import Sequences

if TYPE_CHECKING:
    from glotfuse.model.fused_model import FusedModel

logger = logging.getLogger(__name__)

_MAX_ROWS = 128
"""Most rows, texts times label words, that continue from a copy of the cache at once: it takes memory."""
_MAX_LOGITS = 1 << 27
"""Most logits that a tree of label words may give at once, half a gigabyte."""
CHECKED_ROWS = 2
"""Texts of the first batch on which the tree of label words is tried out."""


def score_labels(model: FusedModel, examples: Sequence[PreparedExample]) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), in float32.

    Label words of one token are read from the prompt's last position. Where some have several, prompt and label words
    are read in one pass, the label words as one tree in which they do not see each other, if the LM can; otherwise
    each continues from a copy of the prompt's cache; and without a cache each takes a whole pass.
    """
    batch = collate(examples, model.encoder.pad_token_id)
    sequences = model.assemble(batch)
    if all(len(ids) == 1 for ids in model.label_ids):
        return _first_tokens(model, model.run_lm(sequences, sequences.last())[0])
    if model.head_cache(model.prompt) is None:
        return _score_whole(model, sequences)
    tree = LabelTree.build(model.label_ids)
    if not _can_branch(model, sequences, tree):
        return _score_words(model, sequences)
    at_once = rows_at_once(model, 1 + len(tree.token_ids))
    parts = [rows_of(sequences, start, start + at_once) for start in range(0, len(examples), at_once)]
    return torch.cat([_score_tree(model, part, tree) for part in parts])


def rows_at_once(model: FusedModel, num_logits: int) -> int:
    """Most rows that may be read together, each with logits at so many positions."""
    vocabulary = model.lm.model.get_input_embeddings().weight.shape[0]
    return int(max(1, _MAX_LOGITS // (num_logits * vocabulary)))


def rows_of(sequences: Sequences, start: int, end: int) -> Sequences:
    """Some of the rows."""
    return Sequences(*(x[start:end] for x in sequences))


def tree_tolerance(model: FusedModel, largest: float) -> float:
    """Most by which a log-probability per token may differ where it is read in a tree.

    Args:
        model: The model.
        largest: Largest absolute log-probability per token.
    """
    if model.lm.working_dtype == torch.float32:
        return model.lm.tolerance
    return model.lm.tolerance * max(1.0, largest)  # half precision rounds a logit by a share of its size


def _can_branch(model: FusedModel, sequences: Sequences, tree: LabelTree) -> bool:
    """Whether the LM obeys a mask that makes a tree of the label words; tried out once per model and prompt."""
    total = len(model.prompt.head_ids) + sequences.mask.shape[1] + len(tree.token_ids)
    if not model.lm.obeys_mask(total):
        return False
    if model.branching is None:
        model.branching = _try_branching(model, rows_of(sequences, 0, CHECKED_ROWS), tree)
    return model.branching


def _try_branching(model: FusedModel, sequences: Sequences, tree: LabelTree) -> bool:
    """Whether reading label words as a tree gives the scores that they have one by one."""
    by_word = _score_words(model, sequences)
    try:
        by_tree = _score_tree(model, sequences, tree)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Label words are scored one by one: %s cannot read them as a tree (%s).", _name(model), error)
        return False
    num_tokens = torch.tensor([len(path) for path in tree.paths], device=sequences.mask.device)
    difference = (by_tree - by_word).abs() / num_tokens  # every token's rounding adds up
    allowed = tree_tolerance(model, float((by_word.abs() / num_tokens).max()))
    if bool((difference <= allowed).all()):
        return True
    logger.warning(
        "Label words are scored one by one: read as a tree, %s gives log-probabilities that differ by %.1e per token.",
        _name(model),
        float(difference.max()),
    )
    return False


def _name(model: FusedModel) -> str:
    return type(model.lm.model).__name__


def _score_tree(model: FusedModel, sequences: Sequences, tree: LabelTree) -> Tensor:
    """Log-probability of R label words, (B,R), in one pass over each row and the W nodes behind it."""
    head = model.head_cache(model.prompt)
    assert head is not None
    device, (batch_size, num_positions) = sequences.mask.device, sequences.mask.shape
    num_nodes, num_head = len(tree.token_ids), head.length
    nodes = torch.tensor(tree.token_ids, device=device).expand(batch_size, -1)
    places = torch.arange(num_positions, device=device)
    depths = torch.tensor(tree.depths, device=device)
    position_ids = torch.cat([places.expand(batch_size, -1), sequences.lengths.unsqueeze(1) + depths], dim=1)
    logits = model.lm.run(
        torch.cat([sequences.embeddings, model.lm.embed(nodes).to(sequences.embeddings.dtype)], dim=1),
        F.pad(sequences.last(), (0, num_nodes), value=True),
        cache=head.expand(batch_size),
        attention_mask=tree_mask(sequences.mask, torch.tensor(tree.visible(), device=device), num_head, model.lm.dtype),
        position_ids=num_head + position_ids,
    ).view(batch_size, 1 + num_nodes, -1)  # first the row's last position, then the nodes
    normaliser = logits.logsumexp(-1)
    columns = [
        torch.stack([logits[:, 1 + node, token] - normaliser[:, 1 + node] for node, token in path]).sum(0)
        for path in tree.paths
    ]
    return torch.stack(columns, dim=1)


def tree_mask(real: Tensor, among: Tensor, num_head: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, (B,1,M+W,C+M+W): rows are causal, nodes see their row and their ancestors.

    Args:
        real: (B,M), true for real positions.
        among: (W,W) or (B,W,W), which nodes each node sees.
        num_head: C.
        dtype: Of the result.
    """
    device, (batch_size, num_positions) = real.device, real.shape
    num_nodes = among.shape[-1]
    causal = torch.ones(num_positions, num_positions, dtype=torch.bool, device=device).tril()
    rows = F.pad(causal, (num_head, 0), value=True)
    rows = F.pad(rows, (0, num_nodes), value=False).expand(batch_size, -1, -1)
    before = F.pad(real, (num_head, 0), value=True).unsqueeze(1).expand(-1, num_nodes, -1)
    hidden = ~torch.cat([rows, torch.cat([before, among.expand(batch_size, -1, -1)], dim=2)], dim=1)
    return hidden.to(dtype).masked_fill(hidden, torch.finfo(dtype).min).unsqueeze(1)


def _first_tokens(model: FusedModel, logits: Tensor) -> Tensor:
    """Log-probability of each label word's first token, (B,R), from logits (B,V)."""
    return torch.log_softmax(logits, dim=-1)[:, [ids[0] for ids in model.label_ids]]


def _score_words(model: FusedModel, sequences: Sequences) -> Tensor:
    """The same from copies of the prompt's cache, one for each label word of several tokens."""
    logits, cache = model.run_lm(sequences, sequences.last())
    scores = _first_tokens(model, logits)
    several = [r for r, ids in enumerate(model.label_ids) if len(ids) > 1]
    at_once = max(1, _MAX_ROWS // len(sequences.mask))
    for start in range(0, len(several), at_once):
        chosen = several[start : start + at_once]
        scores[:, chosen] += _score_rest(model, sequences, cache, [model.label_ids[r] for r in chosen])
    return scores


def _score_rest(model: FusedModel, sequences: Sequences, cache: Any, label_ids: list[list[int]]) -> Tensor:
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


def _score_whole(model: FusedModel, sequences: Sequences) -> Tensor:
    """The same by a full pass per label word, where nothing is cached."""
    columns = []
    for ids in model.label_ids:
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
