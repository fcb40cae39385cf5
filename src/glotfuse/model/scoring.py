"""Log-probability of given answers after the prompt; label words are the answers that all texts have in common.

The answers of a text share its encoder pass and, where the LM can read them as one tree behind the row, its prompt
pass. Where it cannot, each continues from a copy of the prompt's cache, and without a cache each takes a whole pass.

Shapes: B batch, C head tokens, M positions after the head, R most answers of a text, A tokens of an answer, W nodes of
the largest tree of answers, V vocabulary, N positions whose logits are read, S tokens of all answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
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
from glotfuse.model.sequences import Sequences, tree_mask

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


def score_labels(model: FusedModel, batch: Batch) -> Tensor:
    """Log-probability of each label word's tokens after the prompt, (B,R), in float32.

    Args:
        model: The model, whose label words are scored.
        batch: B texts.
    """
    answers = [model.label_ids] * len(batch.encoder_ids)
    return _Question(model, model.assemble(batch), answers, model.prompt, greedy=False).scores().values


def score_answers(
    model: FusedModel, examples: Sequence[PreparedExample], answers: Answers, prompt: Prompt | None = None
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
    values, missed = _Question(model, sequences, answers, prompt, greedy=True).scores()
    return [
        [AnswerScore(value, not wrong) for value, wrong, _ in zip(row, wrongs, own, strict=False)]
        for row, wrongs, own in zip(values.tolist(), missed.tolist(), answers, strict=True)
    ]


_tree_of = lru_cache(64)(LabelTree.build)


@dataclass(frozen=True)
class _Question:
    """Texts and their answers, to be scored in whatever way the LM allows."""

    model: FusedModel
    sequences: Sequences
    """What the LM reads after the head, B rows."""
    answers: Answers
    prompt: Prompt
    greedy: bool
    """Whether it is wanted how many tokens are not the most probable ones."""

    @cached_property
    def trees(self) -> list[LabelTree]:
        """(B,), one tree where all texts have the same answers."""
        different = {id(own): own for own in self.answers}  # of label words the same list for all texts
        found = {key: _tree_of(tuple(map(tuple, own))) for key, own in different.items()}
        return [found[id(own)] for own in self.answers]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(B,R)."""
        return len(self.answers), max(map(len, self.answers))

    def part(self, start: int, end: int) -> _Question:
        """Some of the rows."""
        return replace(
            self, sequences=Sequences(*(x[start:end] for x in self.sequences)), answers=self.answers[start:end]
        )

    def scores(self) -> _Scores:
        """The scores of all answers."""
        num_nodes = max(len(tree.token_ids) for tree in self.trees)
        tried: list[_Scores] = []
        if num_nodes and not self._can_branch(num_nodes, tried):
            return self.one_by_one()
        at_once = _rows_at_once(self.model, 1 + num_nodes)
        if tried and len(self.answers) <= min(_CHECKED_ROWS, at_once):
            return tried[0]  # these very rows have just been read as trees
        parts = [self.part(start, start + at_once).by_tree() for start in range(0, len(self.answers), at_once)]
        most = self.shape[1]
        padded = [[F.pad(x, (0, most - x.shape[1])) for x in part] for part in parts]
        return _Scores(*(torch.cat(column) for column in zip(*padded, strict=True)))

    def _can_branch(self, num_nodes: int, tried: list[_Scores]) -> bool:
        """Whether the LM obeys a mask that makes a tree of the answers; tried out once per model and labels.

        Scores of the rows that it was tried out on are put into `tried`.
        """
        model = self.model
        total = len(self.prompt.head_ids) + self.sequences.mask.shape[1] + num_nodes
        if model.head_cache(self.prompt) is None or not model.lm.obeys_mask(total):
            return False
        if model.branching is None:
            model.branching = self.part(0, _CHECKED_ROWS).tree_is_right(tried)
        return model.branching

    def tree_is_right(self, tried: list[_Scores]) -> bool:
        """Whether reading answers as a tree gives the scores that they have one by one; they are put into `tried`."""
        lm, name = self.model.lm, type(self.model.lm.model).__name__
        singly = self.one_by_one().values
        try:
            tried.append(self.by_tree())
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            logger.warning("Answers are scored one by one: %s cannot read them as a tree (%s).", name, error)
            return False
        num_tokens = pad_rows([[len(ids) for ids in own] for own in self.answers]).to(singly.device).clamp_min(1)
        difference = float(((tried[0].values - singly).abs() / num_tokens).max())  # every token's rounding adds up
        allowed = lm.tolerance
        if lm.working_dtype != torch.float32:  # half precision rounds a logit by a share of its size
            allowed *= max(1.0, float((singly.abs() / num_tokens).max()))
        if difference <= allowed:
            return True
        logger.warning(
            "Answers are scored one by one: read as a tree, %s gives log-probabilities that differ by %.1e per token.",
            name,
            difference,
        )
        return False

    def by_tree(self) -> _Scores:
        """One pass over each row and its own tree behind it."""
        places, tokens, owners, offset = [], [], [], 0
        for row, tree in enumerate(self.trees):
            for column, path in enumerate(tree.paths):
                places += [offset + 1 + step.node for step in path]  # the row's last position, then its nodes
                tokens += [step.token_id for step in path]
                owners += [row * self.shape[1] + column] * len(path)
            offset += 1 + len(tree.token_ids)
        return self._add_up(self._read_trees(), places, tokens, owners)

    def _read_trees(self) -> Tensor:
        """Logits (N,V) at each row's last position and at its nodes, row after row."""
        model, sequences, trees = self.model, self.sequences, self.trees
        num_nodes = max(len(tree.token_ids) for tree in trees)
        if num_nodes == 0:
            return model.run_lm(sequences, sequences.last(), self.prompt)[0]
        head = model.head_cache(self.prompt)
        assert head is not None
        device, (batch_size, num_positions) = sequences.mask.device, sequences.mask.shape
        different = list({id(tree): tree for tree in trees}.values())
        number = {id(tree): i for i, tree in enumerate(different)}
        which = torch.tensor([number[id(tree)] for tree in trees], device=device)
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
            attention_mask=tree_mask(sequences.mask, among.to(device)[which], head.length, model.lm.dtype),
            position_ids=head.length + torch.cat([places, sequences.lengths.unsqueeze(1) + depths], dim=1),
        )

    def one_by_one(self) -> _Scores:
        """From copies of the prompt's cache, one for each answer; by whole passes where there is no cache."""
        if self.model.head_cache(self.prompt) is None:
            return self._by_whole_passes()
        logits, cache = self.model.run_lm(self.sequences, self.sequences.last(), self.prompt)
        rows, owners, answers = self._flat()
        scores = self._add_up(logits, rows, [ids[0] for ids in answers], owners)
        several = sorted({owner % self.shape[1] for owner, ids in zip(owners, answers, strict=True) if len(ids) > 1})
        at_once = max(1, _MAX_ROWS // len(self.answers))
        for start in range(0, len(several), at_once):
            scores += self._rest(several[start : start + at_once], cache)
        return scores

    def _flat(self) -> tuple[list[int], list[int], list[list[int]]]:
        """All answers, one after another: the row of each, its number in a (B,R) table, and its tokens."""
        width = self.shape[1]
        found = [(r, r * width + c, list(ids)) for r, own in enumerate(self.answers) for c, ids in enumerate(own)]
        rows, owners, answers = zip(*found, strict=True)
        return list(rows), list(owners), list(answers)

    def _rest(self, columns: Sequence[int], cache: object) -> _Scores:
        """Scores of the tokens after the first of some columns of answers, continuing from the batch's cache.

        The cached rows are padded at the right. Their padding moves to the left first, so that the answer tokens follow
        without a gap, which attention windows and ALiBi positions would count.
        """
        lm, mask, num_head = self.model.lm, self.sequences.mask, len(self.prompt.head_ids)
        own = [list(row[c]) if c < len(row) else [] for row in self.answers for c in columns]
        inputs, targets = (pad_rows(rows).to(mask.device) for rows in ([x[:-1] for x in own], [x[1:] for x in own]))
        seen = F.pad(mask, (num_head, 0), value=True)
        order = seen.to(torch.uint8).argsort(dim=1, stable=True)
        before = seen.take_along_dim(order, 1).repeat_interleave(len(columns), 0)
        begin = (num_head + self.sequences.lengths).repeat_interleave(len(columns)).unsqueeze(1)
        keep = targets != IGNORED
        logits = lm.run(
            lm.embed(inputs.clamp_min(0)),
            keep,
            cache=continued(cache, order, len(columns)),
            attention_mask=torch.cat([before, inputs != IGNORED], dim=1).long(),
            position_ids=begin + torch.arange(inputs.shape[1], device=mask.device),
        )
        places = torch.tensor([row * self.shape[1] + c for row in range(len(self.answers)) for c in columns])
        owners = places.to(mask.device)[keep.nonzero()[:, 0]]
        return self._add_up(logits, range(len(owners)), targets[keep], owners)

    def _by_whole_passes(self) -> _Scores:
        """By a whole pass of the LM per answer; the encoder's pass is shared."""
        rows, owners, answers = self._flat()
        at_once = min(_MAX_WHOLE_ROWS, _rows_at_once(self.model, max(map(len, answers))))
        zeros = torch.zeros(self.shape, device=self.sequences.mask.device)
        scores = _Scores(zeros, zeros)
        for start in range(0, len(answers), at_once):
            some = slice(start, start + at_once)
            ids = pad_rows(answers[some]).to(zeros.device)
            prompts = Sequences(*(x[rows[some]] for x in self.sequences))
            whole = prompts.append(self.model.lm.embed(ids.clamp_min(0)), ids)
            following = whole.next_targets()
            keep = following != IGNORED
            logits, _ = self.model.run_lm(whole, keep, self.prompt)
            own = torch.tensor(owners[some], device=zeros.device)[keep.nonzero()[:, 0]]
            scores += self._add_up(logits, range(len(own)), following[keep], own)
        return scores

    def _add_up(
        self,
        logits: Tensor,
        places: Iterable[int],
        tokens: Sequence[int] | Tensor,
        owners: Sequence[int] | Tensor,
    ) -> _Scores:
        """Adds up S tokens by the answer that they belong to.

        Args:
            logits: (N,V).
            places: (S,), the row of `logits` that predicts each token.
            tokens: (S,).
            owners: (S,), the number of each token's answer in a (B,R) table, row by row.
        """
        where, token, owner = (torch.as_tensor(x, device=logits.device) for x in (list(places), tokens, owners))
        values = logits[where, token] - logits.logsumexp(-1)[where]
        zeros = values.new_zeros(self.shape[0] * self.shape[1])
        sums = zeros.index_add(0, owner, values).view(self.shape)
        if not self.greedy:
            return _Scores(sums, zeros.view(self.shape))
        wrong = (logits.argmax(-1)[where] != token).to(values.dtype)
        return _Scores(sums, zeros.index_add(0, owner, wrong).view(self.shape))


def _rows_at_once(model: FusedModel, num_logits: int) -> int:
    """Most rows that may be read together, each with logits at so many positions."""
    vocabulary = model.lm.model.get_input_embeddings().weight.shape[0]
    return int(max(1, _MAX_LOGITS // (num_logits * vocabulary)))
