"""Log-probability of given answers after the prompt, where every text has answers of its own.

Label words are the same for all texts (`scoring.py`); here each text brings its own, any number and of any length. The
answers of one text share its encoder pass and its prompt pass: they are read as one tree behind the row.

Shapes: B batch, C head tokens, M positions after the head, W nodes of the largest tree, V vocabulary, N positions
whose logits are read, S tokens of all answers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.padding import IGNORED, pad_rows
from glotfuse.inputs.prompts import Prompt
from glotfuse.model.label_tree import LabelTree
from glotfuse.model.scoring import CHECKED_ROWS, rows_at_once, rows_of, tree_mask, tree_tolerance
from glotfuse.model.sequences import Sequences

if TYPE_CHECKING:
    from glotfuse.model.fused_model import FusedModel

logger = logging.getLogger(__name__)

_MAX_ROWS = 32
"""Most answers that are read at once where each takes a whole pass."""


class AnswerScore(NamedTuple):
    """How probable an answer is after the prompt."""

    log_probability: float
    """Sum over its tokens."""
    is_greedy: bool
    """Whether every token is the most probable one in its place."""


def score_answers(
    model: FusedModel,
    examples: Sequence[PreparedExample],
    answers: Sequence[Sequence[Sequence[int]]],
    prompt: Prompt | None = None,
) -> list[list[AnswerScore]]:
    """Scores one batch of texts; the caller holds `model.answering()`.

    Args:
        model: The model.
        examples: B prepared texts.
        answers: For each text, the token ids of its answers (`Prompt.answer_ids`).
        prompt: The prompt, the model's own by default.

    Raises:
        PromptError: An answer has no tokens.
    """
    if any(not ids for row in answers for ids in row):
        raise PromptError("Expected answers with tokens; found an empty one, whose probability means nothing.")
    prompt = prompt or model.prompt
    sequences = model.assemble(collate(examples, model.encoder.pad_token_id), prompt)
    trees = [LabelTree.build(row) for row in answers]
    if not _can_branch(model, sequences, answers, trees, prompt):
        return _score_whole(model, sequences, answers, prompt)
    at_once = rows_at_once(model, 1 + max(len(tree.token_ids) for tree in trees))
    scores = []
    for start in range(0, len(trees), at_once):
        part = rows_of(sequences, start, start + at_once)
        scores += _score_trees(model, part, trees[start : start + at_once], prompt)
    return scores


def _can_branch(
    model: FusedModel,
    sequences: Sequences,
    answers: Sequence[Sequence[Sequence[int]]],
    trees: Sequence[LabelTree],
    prompt: Prompt,
) -> bool:
    """Whether the LM can read answers as a tree; tried out once per model, as for label words."""
    num_nodes = max(len(tree.token_ids) for tree in trees)
    if num_nodes == 0:
        return True
    total = len(prompt.head_ids) + sequences.mask.shape[1] + num_nodes
    if model.head_cache(prompt) is None or not model.lm.obeys_mask(total):
        return False
    if model.branching is None:
        few = rows_of(sequences, 0, CHECKED_ROWS)
        model.branching = _try_branching(model, few, answers[:CHECKED_ROWS], trees[:CHECKED_ROWS], prompt)
    return model.branching


def _try_branching(
    model: FusedModel,
    sequences: Sequences,
    answers: Sequence[Sequence[Sequence[int]]],
    trees: Sequence[LabelTree],
    prompt: Prompt,
) -> bool:
    num_tokens = [len(ids) for row in answers for ids in row]
    singly = [score.log_probability for row in _score_whole(model, sequences, answers, prompt) for score in row]
    try:
        found = [score.log_probability for row in _score_trees(model, sequences, trees, prompt) for score in row]
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Answers are scored one by one: the LM cannot read them as a tree (%s).", error)
        return False
    worst = max(abs(a - b) / n for a, b, n in zip(singly, found, num_tokens, strict=True))
    allowed = tree_tolerance(model, max(abs(a) / n for a, n in zip(singly, num_tokens, strict=True)))
    if worst > allowed:
        logger.warning("Answers are scored one by one: read as a tree, they differ by %.1e per token.", worst)
    return worst <= allowed


def _score_trees(
    model: FusedModel, sequences: Sequences, trees: Sequence[LabelTree], prompt: Prompt
) -> list[list[AnswerScore]]:
    """One pass over each row and its own tree behind it."""
    logits = _read_trees(model, sequences, trees, prompt)
    places, tokens, owners = [], [], []
    offset = num_answers = 0
    for tree in trees:
        for path in tree.paths:
            places += [offset + 1 + step.node for step in path]  # the row's last position, then its nodes
            tokens += [step.token_id for step in path]
            owners += [num_answers] * len(path)
            num_answers += 1
        offset += 1 + len(tree.token_ids)
    return _by_row(_sum(logits, places, tokens, owners, num_answers), [len(tree.paths) for tree in trees])


def _read_trees(model: FusedModel, sequences: Sequences, trees: Sequence[LabelTree], prompt: Prompt) -> Tensor:
    """Logits (N,V) at each row's last position and at its nodes, row after row."""
    num_nodes = max(len(tree.token_ids) for tree in trees)
    if num_nodes == 0:
        return model.run_lm(sequences, sequences.last(), prompt)[0]
    head = model.head_cache(prompt)
    assert head is not None
    device, (batch_size, num_positions) = sequences.mask.device, sequences.mask.shape
    nodes = pad_rows([tree.token_ids for tree in trees]).to(device)  # (B,W)
    depths = pad_rows([tree.depths for tree in trees]).to(device).clamp_min(0)
    among = torch.eye(num_nodes, dtype=torch.bool, device=device).repeat(batch_size, 1, 1)
    for row, tree in enumerate(trees):
        if tree.token_ids:
            size = len(tree.token_ids)
            among[row, :size, :size] = torch.tensor(tree.visible(), device=device)
    places = torch.arange(num_positions, device=device).expand(batch_size, -1)
    position_ids = torch.cat([places, sequences.lengths.unsqueeze(1) + depths], dim=1)
    embeddings = model.lm.embed(nodes.clamp_min(0)).to(sequences.embeddings.dtype)
    return model.lm.run(
        torch.cat([sequences.embeddings, embeddings], dim=1),
        torch.cat([sequences.last(), nodes != IGNORED], dim=1),
        cache=head.expand(batch_size),
        attention_mask=tree_mask(sequences.mask, among, head.length, model.lm.dtype),
        position_ids=head.length + position_ids,
    )


def _score_whole(
    model: FusedModel, sequences: Sequences, answers: Sequence[Sequence[Sequence[int]]], prompt: Prompt
) -> list[list[AnswerScore]]:
    """The same by a whole pass of the LM per answer; the encoder's pass is still shared."""
    rows = [row for row, own in enumerate(answers) for _ in own]
    flat = [list(ids) for own in answers for ids in own]
    at_once = min(_MAX_ROWS, rows_at_once(model, max(map(len, flat), default=1)))
    scores: list[AnswerScore] = []
    for start in range(0, len(flat), at_once):
        ids = pad_rows(flat[start : start + at_once]).to(sequences.mask.device)
        part = Sequences(*(x[rows[start : start + at_once]] for x in sequences))
        targets = part.append(model.lm.embed(ids.clamp_min(0)), ids)
        following = targets.next_targets()
        keep = following != IGNORED
        logits, _ = model.run_lm(targets, keep, prompt)
        owners = keep.nonzero()[:, 0].tolist()
        scores += _sum(logits, list(range(len(owners))), following[keep].tolist(), owners, len(ids))
    return _by_row(scores, [len(own) for own in answers])


def _sum(
    logits: Tensor, places: Sequence[int], tokens: Sequence[int], owners: Sequence[int], num_answers: int
) -> list[AnswerScore]:
    """Adds up S tokens by the answer that they belong to.

    Args:
        logits: (N,V).
        places: For each token, the row of `logits` that predicts it.
        tokens: The tokens.
        owners: For each token, the index of its answer.
        num_answers: How many answers there are.
    """
    where, token, owner = (torch.tensor(x, device=logits.device) for x in (places, tokens, owners))
    values = logits[where, token] - logits.logsumexp(-1)[where]
    sums = values.new_zeros(num_answers).index_add_(0, owner, values)
    missed = torch.zeros_like(sums).index_add_(0, owner, (logits.argmax(-1)[where] != token).to(sums.dtype))
    return [AnswerScore(*pair) for pair in zip(sums.tolist(), (missed == 0).tolist(), strict=True)]


def _by_row(scores: list[AnswerScore], counts: Sequence[int]) -> list[list[AnswerScore]]:
    rows, start = [], 0
    for count in counts:
        rows.append(scores[start : start + count])
        start += count
    return rows
