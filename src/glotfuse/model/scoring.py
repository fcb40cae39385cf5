"""Log-probability of given answers after the prompt; label words are the answers that all texts have in common.

The answers of a text share its encoder pass and, where the LM can read them as one tree behind the row, its prompt
pass. Where it cannot, each continues from a copy of the prompt's cache, and without a cache each takes a whole pass.

Shapes: B batch, C head tokens, M positions after the head, R most answers of a text, A tokens of an answer, W nodes of
the largest tree of answers, V vocabulary, N positions whose logits are read, S tokens of all answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.prefix_cache import continued
from glotfuse.errors import PromptError
from glotfuse.inputs.batch import Batch, PreparedExample, collate
from glotfuse.inputs.padding import IGNORED, pad_rows
from glotfuse.inputs.prompts import Prompt
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.label_tree import LabelTree
from glotfuse.model.sequences import Sequences

logger = logging.getLogger(__name__)

Answers = Sequence[Sequence[Sequence[int]]]
"""For each text, the token ids of its answers."""

_MAX_ROWS = 128
"""Most rows, texts times answers, that continue from a copy of the cache at once: it takes memory."""
_MAX_WHOLE_ROWS = 32
"""Most answers that are read at once where each takes a whole pass."""
_MAX_LOGITS = 1 << 27
"""Most logits that a tree of answers may give at once, half a gigabyte."""
_CHECKED_ROWS = 2
"""Texts of the first batch on which the tree of answers is tried out."""


class AnswerScore(NamedTuple):
    """How probable an answer is after the prompt."""

    log_probability: float
    """Sum over its tokens."""
    is_greedy: bool
    """Whether every token is the most probable one in its place."""


class _Scores(NamedTuple):
    """Of all answers of a batch; zeros in the place of answers that a text does not have."""

    values: Tensor
    """(B,R), log-probabilities."""
    missed: Tensor
    """(B,R), how many tokens are not the most probable ones; zeros where nobody asked."""

    def __add__(self, other: _Scores) -> _Scores:  # type: ignore[override]
        return _Scores(self.values + other.values, self.missed + other.missed)


def score_labels(model: FusedModel, examples: Sequence[PreparedExample]) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), in float32.

    Args:
        model: The model, whose label words are scored.
        examples: B prepared texts.
    """
    return score_batch(model, collate(examples, model.encoder.pad_token_id))


def score_batch(model: FusedModel, batch: Batch) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), for a collated batch."""
    answers = [model.label_ids] * len(batch.encoder_ids)
    return _score(model, model.assemble(batch), answers, model.prompt, greedy=False).values


def score_answers(
    model: FusedModel,
    examples: Sequence[PreparedExample],
    answers: Answers,
    prompt: Prompt | None = None,
) -> list[list[AnswerScore]]:
    """Scores one batch of texts, each with answers of its own; the caller holds `model.answering()`.

    Args:
        model: The model.
        examples: B prepared texts.
        answers: For each text, the token ids of its answers (`Prompt.answer_ids`), any number and of any length.
        prompt: The prompt, the model's own by default.

    Raises:
        PromptError: An answer has no tokens.
    """
    if any(not ids for row in answers for ids in row):
        raise PromptError("Expected answers with tokens; found an empty one, whose probability means nothing.")
    prompt = prompt or model.prompt
    sequences = model.assemble(collate(examples, model.encoder.pad_token_id), prompt)
    values, missed = _score(model, sequences, answers, prompt, greedy=True)
    return [
        [AnswerScore(value, not wrong) for value, wrong in zip(row[: len(own)], rest[: len(own)], strict=True)]
        for row, rest, own in zip(values.tolist(), missed.tolist(), answers, strict=True)
    ]


def _score(model: FusedModel, sequences: Sequences, answers: Answers, prompt: Prompt, *, greedy: bool) -> _Scores:
    trees = [_tree_of(tuple(map(tuple, own))) for own in answers]
    if not _can_branch(model, sequences, answers, trees, prompt):
        return _score_one_by_one(model, sequences, answers, prompt, greedy=greedy)
    at_once = _rows_at_once(model, 1 + max(len(tree.token_ids) for tree in trees))
    parts = [
        _score_trees(model, _rows_of(sequences, start, start + at_once), trees[start : start + at_once], prompt, greedy)
        for start in range(0, len(trees), at_once)
    ]
    most = max(map(len, answers))
    return _Scores(
        *(torch.cat([F.pad(x, (0, most - x.shape[1])) for x in column]) for column in zip(*parts, strict=True))
    )


_tree_of = lru_cache(64)(LabelTree.build)


def _rows_at_once(model: FusedModel, num_logits: int) -> int:
    """Most rows that may be read together, each with logits at so many positions."""
    vocabulary = model.lm.model.get_input_embeddings().weight.shape[0]
    return int(max(1, _MAX_LOGITS // (num_logits * vocabulary)))


def _rows_of(sequences: Sequences, start: int, end: int) -> Sequences:
    return Sequences(*(x[start:end] for x in sequences))


def _can_branch(
    model: FusedModel, sequences: Sequences, answers: Answers, trees: Sequence[LabelTree], prompt: Prompt
) -> bool:
    """Whether the LM obeys a mask that makes a tree of the answers; tried out once per model and choice of labels."""
    num_nodes = max(len(tree.token_ids) for tree in trees)
    if num_nodes == 0:  # all is read at the prompt's last position
        return True
    total = len(prompt.head_ids) + sequences.mask.shape[1] + num_nodes
    if model.head_cache(prompt) is None or not model.lm.obeys_mask(total):
        return False
    if model.branching is None:
        few = slice(0, _CHECKED_ROWS)
        model.branching = _try_branching(model, _rows_of(sequences, 0, _CHECKED_ROWS), answers[few], trees[few], prompt)
    return model.branching


def _try_branching(
    model: FusedModel, sequences: Sequences, answers: Answers, trees: Sequence[LabelTree], prompt: Prompt
) -> bool:
    """Whether reading answers as a tree gives the scores that they have one by one."""
    name = type(model.lm.model).__name__
    singly = _score_one_by_one(model, sequences, answers, prompt, greedy=False).values
    try:
        by_tree = _score_trees(model, sequences, trees, prompt, greedy=False).values
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Answers are scored one by one: %s cannot read them as a tree (%s).", name, error)
        return False
    num_tokens = pad_rows([[len(ids) for ids in own] for own in answers]).to(singly.device).clamp_min(1)
    difference = float(((by_tree - singly).abs() / num_tokens).max())  # every token's rounding adds up
    allowed = model.lm.tolerance
    if model.lm.working_dtype != torch.float32:  # half precision rounds a logit by a share of its size
        allowed *= max(1.0, float((singly.abs() / num_tokens).max()))
    if difference <= allowed:
        return True
    logger.warning(
        "Answers are scored one by one: read as a tree, %s gives log-probabilities that differ by %.1e per token.",
        name,
        difference,
    )
    return False


def _score_trees(
    model: FusedModel, sequences: Sequences, trees: Sequence[LabelTree], prompt: Prompt, greedy: bool
) -> _Scores:
    """One pass over each row and its own tree behind it."""
    logits = _read_trees(model, sequences, trees, prompt)
    most = max(len(tree.paths) for tree in trees)
    places, tokens, owners, offset = [], [], [], 0
    for row, tree in enumerate(trees):
        for column, path in enumerate(tree.paths):
            places += [offset + 1 + step.node for step in path]  # the row's last position, then its nodes
            tokens += [step.token_id for step in path]
            owners += [row * most + column] * len(path)
        offset += 1 + len(tree.token_ids)
    return _add_up(logits, places, tokens, owners, (len(trees), most), greedy)


def _read_trees(model: FusedModel, sequences: Sequences, trees: Sequence[LabelTree], prompt: Prompt) -> Tensor:
    """Logits (N,V) at each row's last position and at its nodes, row after row."""
    num_nodes = max(len(tree.token_ids) for tree in trees)
    if num_nodes == 0:
        return model.run_lm(sequences, sequences.last(), prompt)[0]
    head = model.head_cache(prompt)
    assert head is not None
    device, (batch_size, num_positions) = sequences.mask.device, sequences.mask.shape
    different = list({id(tree): tree for tree in trees}.values())  # label words: one tree for all rows
    which = torch.tensor([next(i for i, tree in enumerate(different) if tree is own) for own in trees], device=device)
    nodes = pad_rows([tree.token_ids for tree in different]).to(device)[which]  # (B,W)
    depths = pad_rows([tree.depths for tree in different]).to(device).clamp_min(0)[which]
    among = torch.eye(num_nodes, dtype=torch.bool).repeat(len(different), 1, 1)
    for seen, tree in zip(among, different, strict=True):
        size = len(tree.token_ids)
        seen[:size, :size] = torch.tensor(tree.visible(), dtype=torch.bool).view(size, size)
    places = torch.arange(num_positions, device=device).expand(batch_size, -1)
    embeddings = model.lm.embed(nodes.clamp_min(0)).to(sequences.embeddings.dtype)
    return model.lm.run(
        torch.cat([sequences.embeddings, embeddings], dim=1),
        torch.cat([sequences.last(), nodes != IGNORED], dim=1),
        cache=head.expand(batch_size),
        attention_mask=_tree_mask(sequences.mask, among.to(device)[which], head.length, model.lm.dtype),
        position_ids=head.length + torch.cat([places, sequences.lengths.unsqueeze(1) + depths], dim=1),
    )


def _tree_mask(real: Tensor, among: Tensor, num_head: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, (B,1,M+W,C+M+W): rows are causal, nodes see their row and their ancestors.

    Args:
        real: (B,M), true for real positions.
        among: (B,W,W), which nodes each node sees.
        num_head: C.
        dtype: Of the result.
    """
    device, (batch_size, num_positions) = real.device, real.shape
    num_nodes = among.shape[-1]
    causal = torch.ones(num_positions, num_positions, dtype=torch.bool, device=device).tril()
    rows = F.pad(causal, (num_head, 0), value=True)
    rows = F.pad(rows, (0, num_nodes), value=False).expand(batch_size, -1, -1)
    before = F.pad(real, (num_head, 0), value=True).unsqueeze(1).expand(-1, num_nodes, -1)
    hidden = ~torch.cat([rows, torch.cat([before, among], dim=2)], dim=1)
    return hidden.to(dtype).masked_fill(hidden, torch.finfo(dtype).min).unsqueeze(1)


def _score_one_by_one(
    model: FusedModel, sequences: Sequences, answers: Answers, prompt: Prompt, *, greedy: bool
) -> _Scores:
    """From copies of the prompt's cache, one for each answer of several tokens; by whole passes where there is none."""
    if model.head_cache(prompt) is None:
        return _score_whole(model, sequences, answers, prompt, greedy)
    logits, cache = model.run_lm(sequences, sequences.last(), prompt)
    most = max(map(len, answers))
    shape = (len(answers), most)
    flat = [(row, row * most + column, ids) for row, own in enumerate(answers) for column, ids in enumerate(own)]
    rows, owners, tokens = zip(*((row, owner, ids[0]) for row, owner, ids in flat), strict=True)
    scores = _add_up(logits, rows, tokens, owners, shape, greedy)
    several = [column for column in range(most) if any(len(own[column]) > 1 for own in answers if column < len(own))]
    at_once = max(1, _MAX_ROWS // len(answers))
    for start in range(0, len(several), at_once):
        chosen = several[start : start + at_once]
        scores += _score_rest(model, sequences, cache, answers, chosen, most, prompt, greedy)
    return scores


def _score_rest(
    model: FusedModel,
    sequences: Sequences,
    cache: object,
    answers: Answers,
    chosen: Sequence[int],
    most: int,
    prompt: Prompt,
    greedy: bool,
) -> _Scores:
    """Scores of some of the answers' tokens after the first, continuing from the batch's cache.

    The cached rows are padded at the right. Their padding moves to the left first, so that the answer tokens follow
    without a gap, which attention windows and ALiBi positions would count.
    """
    device, (num_head, num_chosen) = sequences.mask.device, (len(prompt.head_ids), len(chosen))
    own = [list(row[column]) if column < len(row) else [] for row in answers for column in chosen]
    inputs, targets = pad_rows([ids[:-1] for ids in own]).to(device), pad_rows([ids[1:] for ids in own]).to(device)
    seen = F.pad(sequences.mask, (num_head, 0), value=True)
    order = seen.to(torch.uint8).argsort(dim=1, stable=True)
    mask = torch.cat([seen.take_along_dim(order, 1).repeat_interleave(num_chosen, 0), inputs != IGNORED], dim=1)
    begin = (num_head + sequences.lengths).repeat_interleave(num_chosen).unsqueeze(1)
    keep = targets != IGNORED
    logits = model.lm.run(
        model.lm.embed(inputs.clamp_min(0)),
        keep,
        cache=continued(cache, order, num_chosen),
        attention_mask=mask.long(),
        position_ids=begin + torch.arange(inputs.shape[1], device=device),
    )
    places = torch.tensor([row * most + column for row in range(len(answers)) for column in chosen], device=device)
    owners = places[keep.nonzero()[:, 0]]
    return _add_up(logits, range(len(owners)), targets[keep], owners, (len(answers), most), greedy)


def _score_whole(model: FusedModel, sequences: Sequences, answers: Answers, prompt: Prompt, greedy: bool) -> _Scores:
    """By a whole pass of the LM per answer; the encoder's pass is shared."""
    most = max(map(len, answers))
    flat = [(row, row * most + column, list(ids)) for row, own in enumerate(answers) for column, ids in enumerate(own)]
    at_once = min(_MAX_WHOLE_ROWS, _rows_at_once(model, max(len(ids) for _, _, ids in flat)))
    zeros = torch.zeros(len(answers), most, device=sequences.mask.device)
    scores = _Scores(zeros, zeros)
    for start in range(0, len(flat), at_once):
        rows, places, some = zip(*flat[start : start + at_once], strict=True)
        ids = pad_rows(some).to(zeros.device)
        whole = Sequences(*(x[list(rows)] for x in sequences)).append(model.lm.embed(ids.clamp_min(0)), ids)
        following = whole.next_targets()
        keep = following != IGNORED
        logits, _ = model.run_lm(whole, keep, prompt)
        owners = torch.tensor(places, device=zeros.device)[keep.nonzero()[:, 0]]
        scores += _add_up(logits, range(len(owners)), following[keep], owners, (len(answers), most), greedy)
    return scores


def _add_up(
    logits: Tensor,
    places: Iterable[int],
    tokens: Sequence[int] | Tensor,
    owners: Sequence[int] | Tensor,
    shape: tuple[int, int],
    greedy: bool,
) -> _Scores:
    """Adds up S tokens by the answer that they belong to.

    Args:
        logits: (N,V).
        places: (S,), the row of `logits` that predicts each token.
        tokens: (S,).
        owners: (S,), the number of each token's answer in a (B,R) table, row by row.
        shape: (B,R).
        greedy: Whether it is wanted how many tokens are not the most probable ones.
    """
    where, token, owner = (torch.as_tensor(x, device=logits.device) for x in (list(places), tokens, owners))
    values = logits[where, token] - logits.logsumexp(-1)[where]
    zeros = values.new_zeros(shape[0] * shape[1])
    sums = zeros.index_add(0, owner, values).view(shape)
    if not greedy:
        return _Scores(sums, zeros.view(shape))
    wrong = (logits.argmax(-1)[where] != token).to(values.dtype)
    return _Scores(sums, zeros.index_add(0, owner, wrong).view(shape))
